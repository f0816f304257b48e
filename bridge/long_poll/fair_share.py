"""Who gets what: the pure part of the dispatcher. Within a queue the head first; across queues they take turns."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from bridge.queues import Queue


class Wanting(Protocol):
    """The part of a poll that sharing out needs."""

    queues: Sequence[Queue]

    @property
    def wants(self) -> int: ...


P = TypeVar("P", bound=Wanting)  # hashable by identity
E = TypeVar("E")


class FairShare:
    """Remembers which queue had its last turn when."""

    def __init__(self) -> None:
        self._last: dict[Queue, int] = {}
        self._count = 0

    def order(self, queues: Iterable[Queue]) -> list[Queue]:
        """Sort the queues, the one that has waited longest for its turn first."""
        return sorted(queues, key=lambda queue: self._last.get(queue, 0))

    def first(self, queues: Iterable[Queue]) -> Queue | None:
        """Return the queue that has waited longest for its turn, or None if there is none."""
        return min(queues, key=lambda queue: self._last.get(queue, 0), default=None)

    def served(self, queue: Queue) -> None:
        """Note that a queue had its turn, even if none of its jobs was claimed: else it would hold up the others."""
        self._count += 1
        self._last[queue] = self._count

    def forget(self, keep: Iterable[Queue]) -> None:
        """Forget all queues but these."""
        self._last = {queue: self._last[queue] for queue in keep if queue in self._last}


def plan(polls: Iterable[Wanting], lengths: Mapping[Queue, int], turns: FairShare, most: int) -> dict[Queue, int]:
    """Plan how many to take from each queue, so that polls are filled and nothing is left over; `most` in all."""
    left = dict(lengths)
    wanted: dict[Queue, int] = {}
    for poll in polls:
        for _ in range(min(poll.wants, most)):
            queue = turns.first(queue for queue in poll.queues if left.get(queue))
            if queue is None:
                break
            left[queue] -= 1
            most -= 1
            wanted[queue] = wanted.get(queue, 0) + 1
            turns.served(queue)
    return wanted


def share_out(
    found: Mapping[Queue, Iterable[E]], candidates: Callable[[Queue], Iterable[P]], may: Callable[[E, P], bool]
) -> tuple[list[tuple[E, P]], list[E]]:
    """Pair what was found with the polls that want it; return the pairs, and what nobody wants or may have.

    `candidates(queue)` gives the polls for a queue in the order in which they are to be served. The queues take
    turns, one job each.
    """
    given: Counter[P] = Counter()
    pairs: list[tuple[E, P]] = []
    left: list[E] = []
    waiting = deque((deque(entries), _Line(candidates(queue))) for queue, entries in found.items())
    while waiting:
        entries, line = waiting.popleft()
        if not entries:
            continue
        entry = entries.popleft()
        poll = line.first(lambda poll: poll.wants > given[poll], lambda poll: may(entry, poll))  # noqa: B023
        if poll is None:
            left.append(entry)
        else:
            given[poll] += 1
            pairs.append((entry, poll))
        waiting.append((entries, line))
    return pairs, left


class _Line(Generic[P]):
    """The polls in line for a queue; looked at only as far as needed."""

    def __init__(self, polls: Iterable[P]) -> None:
        self._ready: deque[P] = deque()
        self._rest = iter(polls)

    def first(self, wants: Callable[[P], bool], may: Callable[[P], bool]) -> P | None:
        """Return the first poll that wants something and may have this; those that want nothing more leave the line."""
        passed: list[P] = []
        found = None
        while found is None:
            poll = self._ready.popleft() if self._ready else next(self._rest, None)
            if poll is None:
                break
            if wants(poll):
                passed.append(poll)
                found = poll if may(poll) else None
        self._ready.extendleft(reversed(passed))
        return found
