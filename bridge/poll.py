"""A poll, from the request to its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gevent.event import Event
from sqlalchemy.exc import SQLAlchemyError

from bridge.claim import Claimant, Claimed
from bridge.pending import Queue


@dataclass(eq=False)
class Poll:
    """A poll: who asks, for what, and what it got."""

    who: Claimant
    queues: Sequence[Queue]
    max_jobs: int
    gone: Callable[[], bool]  # whether the client has hung up, as far as that can be seen
    parks: bool = True
    jobs: list[Claimed] = field(default_factory=list)
    done: Event = field(default_factory=Event)
    offered: bool = False  # a claim for it is under way
    error: SQLAlchemyError | None = None

    @property
    def wants(self) -> int:
        return 0 if self.done.is_set() else self.max_jobs - len(self.jobs)
