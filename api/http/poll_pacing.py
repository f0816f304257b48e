"""Admits polls a few at a time, so that other requests are served between them.

After an outage of the workers' network thousands of polls come at the same moment, and each costs half a millisecond
until it waits. Served in order of arrival, a create would wait behind all of them, again at each of its steps.
"""

from collections import deque

import gevent
from gevent.event import Event

from bridge.names import API_BASE

POLL = f"{API_BASE}/poll"
AT_ONCE = 8  # about four milliseconds
PAUSE_SECONDS = 0.001  # in which other requests have their turn; a poll that comes alone does not wait for it
# Where this many connections came within a pause, more are behind them, and some of those do not poll: they are
# accepted first, and polls go on one by one.
MANY = 32


def polls(path: str, query: str) -> bool:
    """Return whether a request may wait for a job."""
    return path == POLL or (path.endswith("/result") and "next=" in query)


class PollPacing:
    """Whose turn it is among the polls of this process."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._let_in = 0  # since the last pause
        self._came = 0  # connections accepted since then

    def came(self) -> None:
        """Note that a connection was accepted."""
        self._came += 1

    @property
    def long(self) -> bool:
        """Whether some wait for their turn."""
        return bool(self._waiting)

    def wait(self) -> None:
        """Wait until this poll may go on."""
        if self._let_in < AT_ONCE:
            self._let_in += 1
            if self._let_in == 1:
                gevent.spawn(self._let_others_in)
            return
        turn = Event()
        self._waiting.append(turn)
        turn.wait()

    def _let_others_in(self) -> None:
        while self._let_in:
            gevent.sleep(PAUSE_SECONDS)
            self._let_in = min(1 if self._came >= MANY else AT_ONCE, len(self._waiting))
            self._came = 0
            for _ in range(self._let_in):
                self._waiting.popleft().set()
