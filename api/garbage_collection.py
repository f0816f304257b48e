"""Python's cyclic garbage collector, kept from stopping the event loop.

A full collection visits every container: 80 ms for what is imported at the start, half a second where ten thousand
polls are parked. Python runs one whenever the heap has grown by a quarter, so repeatedly under a burst of requests
(docs/decisions/0040). Here the objects of the start are exempt for good; young objects are collected as usual; and a
full collection runs where memory has grown by what could be garbage, and takes a fiftieth of the time at most.
"""

import gc
import time
from pathlib import Path

MIB = 1024 * 1024
PAGE_BYTES = 4096
YOUNG, MIDDLE = 2000, 10  # containers allocated and not freed; young collections: one millisecond, some milliseconds
NEVER = 1_000_000  # collections of the middle generation before a full one
GROWN_BYTES = 32 * MIB
CHEAP_SECONDS, CHEAP_BYTES = 0.02, 4 * MIB  # after a collection that took less, the next one may come sooner
LOOK_SECONDS = 0.25
MOST_OF_TIME = 0.02
_STATM = Path("/proc/self/statm")


class FullCollections:
    """Decides when this process collects its whole heap."""

    def __init__(self) -> None:
        self._least = 0
        self._took = self._next = 0.0

    def begin(self) -> bool:
        """Exempt all existing objects from collections; return False, and change nothing, where the memory of a process
        cannot be read (macOS)."""
        if not _STATM.exists():
            return False
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, MIDDLE, NEVER)
        self._least = _memory()
        return True

    def look(self) -> bool:
        """Collect if memory has grown from its least since the last collection; return whether it did."""
        began, memory = time.monotonic(), _memory()
        self._least = min(self._least, memory)
        grown = CHEAP_BYTES if self._took < CHEAP_SECONDS else GROWN_BYTES
        if memory < self._least + grown or began < self._next:
            return False
        gc.collect()
        ended = time.monotonic()
        self._took = ended - began
        self._least, self._next = _memory(), ended + self._took / MOST_OF_TIME
        return True


def _memory() -> int:
    """Return the resident memory in bytes."""
    return int(_STATM.read_text().split()[1]) * PAGE_BYTES
