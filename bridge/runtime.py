"""What a process of the bridge works with, made once in its composition root and passed down."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Engine

from bridge.mirror.lists import Mirror
from bridge.settings import Settings

T = TypeVar("T")


class Nudge(Protocol):
    """Ask for `bridge.continue_ingestion` to run soon. Never raises, never waits: the outbox is the truth."""

    def __call__(self, job_ids: list[str]) -> None: ...


class OnFiles(Protocol):
    """Does some work on files where it holds up nobody else: `runtime.files(os.fstat, 3)`.

    Raises what the work raises; Unavailable when the file system does not answer.
    """

    def __call__(self, work: Callable[..., T], *args: Any) -> T: ...


def at_once(work: Callable[..., T], *args: Any) -> T:
    """Does it here and now, for a process that does one thing at a time, as Celery's do."""
    return work(*args)


@dataclass(frozen=True)
class Runtime:
    """The settings, the three connections (PostgreSQL, the mirror, and the way to the continuation), and the files."""

    settings: Settings
    engine: Engine
    mirror: Mirror
    nudge: Nudge
    files: OnFiles = at_once
