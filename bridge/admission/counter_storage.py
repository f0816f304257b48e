"""A storage for the `limits` library: a dictionary.

The library's own MemoryStorage starts a timer thread at each count and goes through all keys a hundred times a second.
"""

import time

from limits.storage import Storage


class CounterStorage(Storage):
    """Counts of this process; `purge` forgets those whose time is over."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}
        self._ends: dict[str, float] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count = self._counts.get(key)
        if count is None:
            self._ends[key] = time.time() + expiry
            count = 0
        self._counts[key] = count = count + amount
        return count

    def get(self, key: str) -> int:
        return self._counts.get(key, 0)

    def get_expiry(self, key: str) -> float:
        return self._ends.get(key, time.time())

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counts)
        self._counts.clear()
        self._ends.clear()
        return count

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)
        self._ends.pop(key, None)

    def purge(self) -> None:
        """Forget what has expired."""
        now = time.time()
        for key in [key for key, end in self._ends.items() if end <= now]:
            self.clear(key)
