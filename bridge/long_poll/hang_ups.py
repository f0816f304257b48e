"""Parked polls whose clients have hung up: noticed within half a second, whether or not there is a job for them.

Until then a dead poll holds a connection, its place in the limits and its memory; after an outage of the workers'
network thousands come back while their earlier polls still wait.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import suppress

import gevent
from gevent import monkey

from bridge.long_poll.poll import Poll

LOOK_SECONDS = 0.25
AT_ONCE = 16  # ended without letting others run: some milliseconds
PAUSE_SECONDS = 0.001

_epoll = monkey.get_original("select", "epoll")  # gevent takes it away: waiting in it would hold up all


class HangUps:
    """The sockets of the polls that wait. The kernel notes which the other end has closed; a look costs one call."""

    def __init__(self) -> None:
        self._closed = _epoll()
        self._polls: dict[int, Poll] = {}  # by file

    def watch(self, poll: Poll) -> None:
        """Watch the connection of a poll that waits from now on."""
        if poll.connection is not None and (file := poll.connection.fileno()) >= 0:
            self._polls[file] = poll
            self._closed.register(file, select.EPOLLRDHUP)

    def forget(self, poll: Poll) -> None:
        """Stop watching a poll that no longer waits; its connection is still open."""
        if poll.connection is None or self._polls.get(file := poll.connection.fileno()) is not poll:
            return
        del self._polls[file]
        with suppress(OSError):
            self._closed.unregister(file)

    def look(self, end: Callable[[Poll], None]) -> None:
        """Call `end` with each poll whose client has gone. One with a claim under way is left to the next look."""
        for poll in self._gone():
            poll.hung_up = True
            end(poll)

    def _gone(self) -> Iterator[Poll]:
        while True:
            seen = [self._polls[file] for file, _ in self._closed.poll(0, AT_ONCE) if file in self._polls]
            gone = [poll for poll in seen if not poll.offered]
            yield from gone
            if not gone:
                return
            gevent.sleep(PAUSE_SECONDS)
