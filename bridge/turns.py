"""Who gets what: the pure part of the hub. Within a queue the head first; across queues they take turns."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from bridge.pending import Queue


class Wanting(Protocol):
    """A poll, as far as sharing out is concerned."""

    queues: Sequence[Queue]

    @property
    def wants(self) -> int: ...


P = TypeVar("P", bound=Wanting)
E = TypeVar("E")


class Turns:
    """Remembers which queue had its last turn when."""

    def __init__(self) -> None:
        self._last: dict[Queue, int] = {}
        self._count = 0

    def order(self, queues: Iterable[Queue]) -> list[Queue]:
        """The queues, the one that waited longest for its turn first."""
        return sorted(queues, key=lambda queue: self._last.get(queue, 0))

    def served(self, queue: Queue) -> None:
        self._count += 1
        self._last[queue] = self._count

    def forget(self, keep: Iterable[Queue]) -> None:
        """Forget all queues but these."""
        self._last = {queue: self._last[queue] for queue in keep if queue in self._last}


def plan(polls: Iterable[Wanting], lengths: Mapping[Queue, int], turns: Turns) -> dict[Queue, int]:
    """How many to take from each queue so that each poll is filled, and nothing is taken for nobody."""
    left = dict(lengths)
    wanted: dict[Queue, int] = {}
    for poll in polls:
        for _ in range(poll.wants):
            queue = next((queue for queue in turns.order(poll.queues) if left.get(queue)), None)
            if queue is None:
                break
            left[queue] -= 1
            wanted[queue] = wanted.get(queue, 0) + 1
            turns.served(queue)
    return wanted


def share_out(
    found: Mapping[Queue, Iterable[E]], candidates: Callable[[Queue], Iterable[P]]
) -> tuple[list[tuple[E, P]], list[E]]:
    """Pair what was found with those who want it; what nobody wants is left over.

    `candidates(queue)` gives the polls for a queue in the order in which they are to be served. The queues take
    turns, one job each.
    """
    waiting = deque((queue, deque(entries), iter(candidates(queue))) for queue, entries in found.items())
    given: dict[int, int] = {}
    pairs: list[tuple[E, P]] = []
    left: list[E] = []
    heads: dict[Queue, P | None] = {queue: next(line, None) for queue, _, line in waiting}
    while waiting:
        queue, entries, line = waiting.popleft()
        poll = heads[queue]
        while poll is not None and poll.wants <= given.get(id(poll), 0):
            poll = heads[queue] = next(line, None)
        if poll is None:
            left.extend(entries)
        elif entries:
            given[id(poll)] = given.get(id(poll), 0) + 1
            pairs.append((entries.popleft(), poll))
            waiting.append((queue, entries, line))
    return pairs, left
