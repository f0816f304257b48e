"""What the tests of bounds share: a look at the memory, and what becomes large when it is unpacked."""

from __future__ import annotations

import functools
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

MIB = 2**20
ROUTES = ["poll", "heartbeat", "result", "release"]  # whose answers are JSON


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fail where more than `limit` bytes of Python's memory were in use at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@functools.cache
def bomb(encoding: str, size: int) -> bytes:
    """Return `size` bytes of JSON white space, compressed to about a thousandth."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return b"".join(squeeze.compress(b" " * MIB) for _ in range(size // MIB)) + squeeze.flush()
