"""What a process of the bridge works with, made once in its composition root and passed down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Engine

from bridge.driver_statements import DriverStatements
from bridge.job_events import Observer
from bridge.mirror.lists import Mirror
from bridge.settings import Settings
from bridge.traces import Traces

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

# Asks for `bridge.continue_ingestion` to run soon for these jobs. Never raises, never waits: the outbox is the truth.
Nudge = Callable[[list[str]], None]


class OnFiles(Protocol):
    """Does some work on files where it delays nobody else: `runtime.files(os.fstat, 3)`.

    Raises what the work raises; Unavailable when the file system does not answer.
    """

    def __call__(self, work: Callable[..., T], *args: Any) -> T: ...


def at_once(work: Callable[..., T], *args: Any) -> T:
    """Do the work here and now, for a process that does one thing at a time, as Celery's do."""
    return work(*args)


@dataclass(frozen=True)
class Together(Generic[A, R]):
    """A write that takes many at once: `write` is one statement that commits itself, `follow` what comes after it.

    `write` returns an outcome for each, in order. If it raises, nothing was written, unless only the answer was lost.
    """

    write: Callable[["Runtime", Sequence[A]], Sequence[R]]
    follow: Callable[["Runtime", Sequence[A], Sequence[R]], None]

    def run(self, runtime: "Runtime", ones: Sequence[A]) -> Sequence[R]:
        """Write these, and do what follows; return the outcomes."""
        outcomes = self.write(runtime, ones)
        self.follow(runtime, ones, outcomes)
        return outcomes


class Batching(Protocol):
    """Does a write for one: `runtime.batches(CREATE, runtime, job)`; perhaps together with others of its moment."""

    def __call__(self, together: Together[A, R], runtime: "Runtime", one: A) -> R: ...


def one_by_one(together: Together[A, R], runtime: "Runtime", one: A) -> R:
    """Write one by itself, for a process that does one thing at a time."""
    return together.run(runtime, [one])[0]


@dataclass(frozen=True)
class Runtime:
    """Settings, the three connections (PostgreSQL, the mirror, the continuation), files, and who writes together."""

    settings: Settings
    engine: Engine
    mirror: Mirror
    nudge: Nudge
    files: OnFiles = at_once
    sends: OnFiles = at_once  # the same for sending them, which takes a core and must not take it from others
    batches: Batching = one_by_one
    observer: Observer = field(default_factory=Observer)  # is told every change once it is committed
    traces: Traces = field(default_factory=Traces)
    call_back: Callable[[], None] = lambda: None  # ask for the due webhooks to be sent soon, as `nudge` does

    @cached_property
    def single(self) -> Engine:
        """Return the engine for single statements: each commits itself, in one round trip instead of three."""
        return self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def driver(self) -> DriverStatements:
        """Return what runs the few statements that every job passes through, as `single` with less work."""
        return DriverStatements(self.engine)
