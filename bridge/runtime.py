"""What a process of the bridge works with, made once in its composition root and passed down."""

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Engine

from bridge.pending import Mirror
from bridge.settings import Settings


class Nudge(Protocol):
    """Ask for `bridge.continue_ingestion` to run soon. Never raises, never waits: the outbox is the truth."""

    def __call__(self, job_ids: list[str]) -> None: ...


@dataclass(frozen=True)
class Runtime:
    """The settings and the three connections: PostgreSQL, the mirror, and the way to the continuation."""

    settings: Settings
    engine: Engine
    mirror: Mirror
    nudge: Nudge
