"""So much at a time: bytes that a process holds for its callers, in all and for each of them.

Who has to wait for room is served in turns, a caller after the other, and what is large is not passed by for ever by
what is small.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from gevent.event import Event


class Budget:
    """`whole` units at a time, `each` of them for one caller; what is larger than `each` counts as `each`."""

    def __init__(self, whole: int, each: int) -> None:
        self._whole = whole
        self._each = min(each, whole)
        self._used: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[tuple[int, Event]]] = OrderedDict()

    @property
    def used(self) -> int:
        return self._used.total()

    def room(self, caller: Hashable) -> bool:
        """Whether this caller may take anything at all just now."""
        return self.used < self._whole and self._used[caller] < self._each

    def take(self, caller: Hashable, size: int) -> bool:
        """Take so much without waiting; false where there is no room."""
        if self._blocked() or not self._fits(caller, self._counted(size)):
            return False
        self.add(caller, size)
        return True

    def add(self, caller: Hashable, size: int) -> None:
        """Count what is held already, whether there is room or not."""
        self._used[caller] += self._counted(size)

    def give_back(self, caller: Hashable, size: int) -> None:
        """What was taken or added is held no more."""
        self._used[caller] -= self._counted(size)
        if self._used[caller] <= 0:
            del self._used[caller]
        self._serve()

    @contextmanager
    def taken(self, caller: Hashable, size: int) -> Iterator[None]:
        """Wait for room, and hold it for as long as the block takes."""
        granted = Event()
        mine = (self._counted(size), granted)
        self._waiting.setdefault(caller, deque()).append(mine)
        self._serve()
        try:
            granted.wait()
            yield
        finally:
            if granted.is_set():
                self.give_back(caller, size)
            else:
                self._forget(caller, mine)
                self._serve()

    def _counted(self, size: int) -> int:
        return min(size, self._each)

    def _fits(self, caller: Hashable, size: int) -> bool:
        return self.used + size <= self._whole and self._used[caller] + size <= self._each

    def _blocked(self) -> bool:
        """Whether somebody waits who would be served before a newcomer."""
        return any(self._used[caller] + its[0][0] <= self._each for caller, its in self._waiting.items())

    def _serve(self) -> None:
        """Let in who fits. The first one who waits for others, not for himself, holds up those behind him."""
        served = True
        while served:
            served = False
            for caller, its in list(self._waiting.items()):
                size, granted = its[0]
                if self._used[caller] + size > self._each:
                    continue
                if self.used + size > self._whole:
                    return
                self._used[caller] += size
                granted.set()
                self._forget(caller, its[0])
                if caller in self._waiting:
                    self._waiting.move_to_end(caller)
                served = True
                break

    def _forget(self, caller: Hashable, one: tuple[int, Event]) -> None:
        its = self._waiting[caller]
        its.remove(one)
        if not its:
            del self._waiting[caller]
