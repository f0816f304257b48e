"""A poll, from the request to its answer."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gevent.event import Event
from sqlalchemy.exc import SQLAlchemyError

from bridge.errors import BridgeError
from bridge.jobs.claim import Claimant, Claimed
from bridge.queues import Queue
from bridge.workers import facts
from bridge.workers.facts import Facts
from bridge.workers.slots import UNTOLD, Slots


@dataclass(eq=False)
class Poll:
    """A poll: who asks, for what, and what it got."""

    who: Claimant
    queues: Sequence[Queue]
    max_jobs: int
    gone: Callable[[], bool]  # whether the client has hung up, as far as that can be seen
    connection: socket.socket | None = None  # to the client
    parks: bool = True
    jobs: list[Claimed] = field(default_factory=list)
    done: Event = field(default_factory=Event)
    hung_up: bool = False  # the client was seen to have hung up: nobody hears the answer
    offered: bool = False  # a claim for it is under way
    again: bool = False  # what it got is what was given to the same claim before
    asked: bool = False  # PostgreSQL was asked for it; what is there for it comes before it goes on
    tries: int = 0  # times that what it was offered was no longer free
    came: float = field(default_factory=time.monotonic)
    error: SQLAlchemyError | BridgeError | None = None  # its answer, unless there is something to give again
    slots: Slots = UNTOLD  # what its worker has said of its slots
    facts: Facts = facts.UNTOLD  # what it has said of itself
    denied: Sequence[str] = ()  # content types that it named and its key does not allow
    request_id: str | None = None  # for the log

    @property
    def wants(self) -> int:
        return 0 if self.done.is_set() else self.max_jobs - len(self.jobs)

    def refuse(self, why: BridgeError) -> None:
        """Give it nothing new: raise `why`, but later if it names a claim that may have been given something."""
        if self.claim is None:
            raise why
        self.error = self.error or why

    def give_again(self, jobs: list[Claimed]) -> None:
        """Give it nothing new, but what an earlier poll of the same claim was given."""
        self.jobs[:] = jobs
        self.again = True
        self.error = None

    @property
    def claim(self) -> object:
        """Return what names the claim of this poll and of its repetitions; None if the worker named none."""
        who = self.who
        return None if who.claim_id is None else (who.key_id, who.worker_id, who.claim_id)
