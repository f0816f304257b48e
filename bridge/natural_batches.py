"""What waits at the same moment is written together: one statement, one commit, one round trip.

A request that comes while nobody writes writes at once, by itself; those that come meanwhile are gathered and go
together when the lane is free. If several went together, so will the next ones: the lane lets all requests that are
ready in this turn of the event loop join before it writes. Nobody waits for a batch to fill.

    alone       write([one]) in the request's own greenlet
    many        a lane takes all that wait, up to MOST; a failure caused by one row is found by repeating singly
    late        after LATE_SECONDS of waiting another lane opens: the first may wait for a server that is away
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import gevent
from gevent.event import Event

from bridge.db import is_of_a_row
from bridge.runtime import Runtime, Together

A = TypeVar("A")
R = TypeVar("R")

LANES = 2  # batches of a kind that are written at the same time at most, the second where the first is late
LATE_SECONDS = 0.1
MOST = 128  # in a batch


class Batches:
    """One per API process; a bridge.runtime.Batching."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lines: dict[Together[Any, Any], _Line[Any, Any]] = {}

    def __call__(self, together: Together[A, R], runtime: Runtime, one: A) -> R:
        """Write this one, perhaps with others; return its outcome or raise its error."""
        line = self._lines.get(together)
        if line is None:
            line = self._lines[together] = _Line(together, runtime, self._most)
        outcome: R = line(one)
        return outcome


class _Turn(Generic[A, R]):
    """A write that waits for its batch."""

    __slots__ = ("done", "error", "one", "outcome")

    def __init__(self, one: A) -> None:
        self.one = one
        self.done = Event()
        self.outcome: R | None = None
        self.error: BaseException | None = None


class _Line(Generic[A, R]):
    """The waiting writes of one kind, and its lanes."""

    def __init__(self, together: Together[A, R], runtime: Runtime, most: int) -> None:
        self._together, self._runtime = together, runtime
        self._most = most
        self._writing = 0  # lanes that are taken
        self._gathering = False  # a lane begins when this turn of the event loop is over
        self._crowded = False  # several were in the last batch
        self._late = gevent.get_hub().loop.timer(LATE_SECONDS)
        self._waiting: deque[_Turn[A, R]] = deque()

    def __call__(self, one: A) -> R:
        if not (self._writing or self._waiting or self._crowded):
            self._writing += 1
            try:
                return self._together.run(self._runtime, [one])[0]
            finally:
                self._writing -= 1
                self._go_on()
        turn: _Turn[A, R] = _Turn(one)
        self._waiting.append(turn)
        self._go_on()
        try:
            turn.done.wait()
        except BaseException:  # its request was ended: what no lane has taken is not written
            if turn in self._waiting:
                self._waiting.remove(turn)
            raise
        if turn.error is not None:
            raise turn.error
        return turn.outcome  # type: ignore[return-value]

    def _go_on(self) -> None:
        """Have those that wait written as soon as no lane is taken, or it is late."""
        if self._waiting:
            if not self._writing:
                self._open()
            elif not self._late.active:
                self._late.start(self._open, update=True)

    def _open(self) -> None:
        """Have a lane take those that wait, in a separate greenlet, which the end of no request can take away."""
        if self._waiting and self._writing < LANES and not self._gathering:
            self._gathering = True
            gevent.spawn(self._lane)

    def _lane(self) -> None:
        self._gathering = False
        self._writing += 1
        try:
            turns = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
            if not self._waiting:
                self._late.stop()
            self._crowded = len(turns) > 1
            if turns:
                self._write(turns)
        finally:
            self._writing -= 1
            self._go_on()

    def _write(self, turns: Sequence[_Turn[A, R]]) -> None:
        try:
            ones = [turn.one for turn in turns]
            outcomes = self._together.write(self._runtime, ones)
        except Exception as error:
            if len(turns) > 1 and is_of_a_row(error):
                for turn in turns:
                    self._write([turn])
            else:
                _tell(turns, error)
            return
        except BaseException:
            _tell(turns, gevent.GreenletExit())
            raise
        try:
            self._together.follow(self._runtime, ones, outcomes)
        except Exception as error:  # what was written stands: it must not be written again
            _tell(turns, error)
            return
        for turn, outcome in zip(turns, outcomes, strict=True):
            turn.outcome = outcome
            turn.done.set()


def _tell(turns: Sequence[_Turn[Any, Any]], error: BaseException) -> None:
    for turn in turns:
        turn.error = error
        turn.done.set()
