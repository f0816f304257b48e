"""The polls that wait in this process, by queue, in the order in which they came."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from bridge.long_poll.hang_ups import HangUps
from bridge.long_poll.listeners import Listeners
from bridge.long_poll.poll import Poll
from bridge.queues import Queue

FEW = 16  # polls that are looked at together; most claims are for the first ones


def _in_line(polls: dict[Poll, None]) -> Iterator[Poll]:
    """Yield the polls in order; a poll that was yielded may be removed before the next one is asked for.

    Touching all of ten thousand polls for each job takes longer than claiming it.
    """
    passed, count = 0, FEW
    while some := list(islice(polls, passed, passed + count)):
        yield from some
        passed += sum(poll in polls for poll in some)
        count *= 2


class Parked:
    """Knows who waits for what; has each queue listened for as long as somebody waits for it."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._polls: dict[Queue, dict[Poll, None]] = {}
        self._claims: dict[object, Poll] = {}  # by what names their claim
        self._hang_ups = HangUps()
        self.count = 0

    def add(self, poll: Poll) -> None:
        for queue in poll.queues:
            self._polls.setdefault(queue, {})[poll] = None
            self._listeners.want(queue)
        if poll.claim is not None:
            self._claims[poll.claim] = poll
        self._hang_ups.watch(poll)
        self.count += 1

    def answer(self, poll: Poll) -> None:
        """Let the request go on with what the poll has got; it waits no longer."""
        self.leave(poll)
        poll.parks = False
        poll.done.set()

    def leave(self, poll: Poll) -> None:
        """Remove a poll from the line: nothing more is offered to it."""
        was_parked = False
        for queue in poll.queues:
            polls = self._polls.get(queue)
            if polls is not None and polls.pop(poll, poll) is None:
                was_parked = True
                if not polls:
                    del self._polls[queue]
                    self._listeners.rest(queue)
        if poll.claim is not None and self._claims.get(poll.claim) is poll:
            del self._claims[poll.claim]
        if was_parked:
            self._hang_ups.forget(poll)
            self.count -= 1

    def supersede(self, poll: Poll) -> None:
        """Answer an earlier poll of the same claim: its worker asks again, so the client that waited has gone."""
        if poll.claim is not None and (earlier := self._claims.get(poll.claim)) is not None:
            self.answer(earlier)

    def queues(self) -> Iterable[Queue]:
        return self._polls.keys()

    def waiting(self, queue: Queue) -> int:
        """Return how many polls wait for this queue."""
        return len(self._polls.get(queue, ()))

    def all(self) -> set[Poll]:
        return {poll for polls in self._polls.values() for poll in polls}

    def let_go(self, which: Callable[[Poll], bool]) -> None:
        """Answer these polls, except those that a claim is under way for."""
        for poll in self.all():
            if not poll.offered and which(poll):
                self.answer(poll)

    def let_go_of_the_gone(self) -> None:
        """Answer the polls whose clients have hung up."""
        self._hang_ups.look(self.answer)

    def candidates(self, queue: Queue, new: Iterable[Poll]) -> Iterator[Poll]:
        """Yield the polls that want this queue's jobs, parked ones before new ones; answer those that have hung up."""
        for poll in chain(_in_line(self._polls.get(queue, {})), [poll for poll in new if queue in poll.queues]):
            if poll.wants <= 0:
                continue
            if poll.gone():
                poll.hung_up = True
                self.answer(poll)
                continue
            yield poll
