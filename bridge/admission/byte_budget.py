"""A bound at any moment: bytes that a process holds for its callers, in all, for each tenant and for each key of it.

A tenant's administrator makes any number of keys: with a bound for each key alone, one tenant could take everything.
Whoever waits for room is served in turns, one tenant after the other, and within a tenant one key after the other;
large requests are not overtaken by small ones for ever.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from gevent.event import Event

Whose = tuple[Hashable, Hashable]  # a tenant, and which of its keys


class Budget:
    """`whole` units at a time: `of_tenant` of them for one tenant, of these `of_key` for one key.

    What is larger than `of_key` counts as `of_key`.
    """

    def __init__(self, whole: int, *, of_tenant: int, of_key: int) -> None:
        self._whole = whole
        self._of_tenant = min(of_tenant, whole)
        self._of_key = min(of_key, self._of_tenant)
        self._tenants: Counter[Hashable] = Counter()
        self._keys: Counter[Whose] = Counter()
        self._waiting: OrderedDict[Whose, deque[tuple[int, Event]]] = OrderedDict()

    @property
    def used(self) -> int:
        return self._tenants.total()

    def room(self, whose: Whose) -> bool:
        """Return whether this key may take anything at all just now."""
        return self.used < self._whole and self._within_shares(whose, 1)

    def take(self, whose: Whose, size: int) -> bool:
        """Take `size` units without waiting; return False if there is no room."""
        counted = self._counted(size)
        if self._blocked() or not self._within_shares(whose, counted) or self.used + counted > self._whole:
            return False
        self.add(whose, size)
        return True

    def add(self, whose: Whose, size: int) -> None:
        """Count what is held already, whether there is room or not."""
        counted = self._counted(size)
        self._tenants[whose[0]] += counted
        self._keys[whose] += counted

    def give_back(self, whose: Whose, size: int) -> None:
        """Give back what was taken or added."""
        counted = self._counted(size)
        self._tenants[whose[0]] -= counted
        self._keys[whose] -= counted
        if self._tenants[whose[0]] <= 0:
            del self._tenants[whose[0]]
        if self._keys[whose] <= 0:
            del self._keys[whose]
        self._serve()

    @contextmanager
    def taken(self, whose: Whose, size: int) -> Iterator[None]:
        """Wait for room, and hold it for the duration of the block."""
        granted = Event()
        mine = (self._counted(size), granted)
        self._waiting.setdefault(whose, deque()).append(mine)
        self._serve()
        try:
            granted.wait()
            yield
        finally:
            if granted.is_set():
                self.give_back(whose, size)
            else:
                self._forget(whose, mine)
                self._serve()

    def _counted(self, size: int) -> int:
        return min(size, self._of_key)

    def _within_shares(self, whose: Whose, counted: int) -> bool:
        mine, its = self._keys[whose], self._tenants[whose[0]]
        return mine + counted <= self._of_key and its + counted <= self._of_tenant

    def _blocked(self) -> bool:
        """Return whether somebody waits who would be served before a newcomer."""
        return any(self._within_shares(whose, its[0][0]) for whose, its in self._waiting.items())

    def _serve(self) -> None:
        """Let in whoever fits. The first one that waits for others, not for its own share, holds up those behind it."""
        while (first := self._first()) is not None:
            counted, granted = self._waiting[first][0]
            if self.used + counted > self._whole:
                return
            self.add(first, counted)
            granted.set()
            self._forget(first, self._waiting[first][0])
            # Its tenant's keys now come after those of others, and itself last.
            for other in sorted((one for one in self._waiting if one[0] == first[0]), key=first.__eq__):
                self._waiting.move_to_end(other)

    def _first(self) -> Whose | None:
        """Return whose turn it is among those whose shares have room, or None."""
        return next((one for one, its in self._waiting.items() if self._within_shares(one, its[0][0])), None)

    def _forget(self, whose: Whose, one: tuple[int, Event]) -> None:
        its = self._waiting[whose]
        its.remove(one)
        if not its:
            del self._waiting[whose]
