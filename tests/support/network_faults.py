"""Where in the bytes of a connection a fault of the network happens (tests/support/fault_proxy.py makes it happen)."""

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]  # up: from the client to the server
Pattern = bytes | re.Pattern[bytes]  # a literal is found across chunks, a regular expression within one

LONGEST = 256  # bytes of a literal


@dataclass(eq=False)
class Fault:
    """A cut that waits for its moment; `happened` is set when it first happens, `count` is how often it did."""

    direction: Direction
    before: bool = True
    times: int = 1
    pattern: Pattern | None = None  # None: after so many bytes
    through: int = 0
    following: bytes = b""
    answer: bytes = b""
    silently: bool = False
    happened: threading.Event = field(default_factory=threading.Event)
    count: int = 0


class Progress:
    """How far each fault has come on one connection."""

    def __init__(self) -> None:
        self._tails: dict[Direction, bytes] = {"up": b"", "down": b""}
        self._answered: dict[Fault, int] = {}  # of those whose pattern has gone up: bytes that came since
        self._passed: dict[Fault, int] = {}  # of those that wait for so many bytes
        self._followed: set[Fault] = set()

    def met(self, faults: Iterable[Fault], direction: Direction, chunk: bytes) -> tuple[Fault, bytes] | None:
        """Return the first of these faults that this chunk meets, and what of the chunk goes through."""
        tail = self._tails[direction]
        self._tails[direction] = (tail + chunk)[-LONGEST:]
        first = None
        for fault in faults:
            passed = self._meets(fault, direction, tail, chunk)
            if passed is not None and first is None:
                first = fault, passed
        return first

    def _meets(self, fault: Fault, direction: Direction, tail: bytes, chunk: bytes) -> bytes | None:
        if fault.pattern is None:
            if fault.direction != direction:
                return None
            before, self._passed[fault] = self._passed.get(fault, 0), self._passed.get(fault, 0) + len(chunk)
            return chunk[: fault.through - before] if before + len(chunk) > fault.through else None
        if fault in self._answered and direction == "down":
            before, self._answered[fault] = self._answered[fault], self._answered[fault] + len(chunk)
            late = before + len(chunk) > fault.through and fault.answer in chunk
            return chunk[: max(0, fault.through - before)] if late else None
        if fault.following and direction == "up" and _found(fault.following, tail, chunk):
            self._followed.add(fault)
        if direction != fault.direction or not _found(fault.pattern, tail, chunk):
            return None
        if fault.following and fault not in self._followed:
            return None
        self._followed.discard(fault)
        if direction == "up" and not fault.before:
            self._answered[fault] = 0
            return None
        return b"" if fault.before else chunk


def _found(pattern: Pattern, tail: bytes, chunk: bytes) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.search(chunk) is not None
    # Not what lies in the tail wholly: it was found when it came.
    return pattern in (tail[-(len(pattern) - 1) :] if len(pattern) > 1 else b"") + chunk
