"""Parked polls whose clients have hung up: noticed within two seconds, whether or not there is a job for them.

Until then a dead poll holds a connection, its place in the limits and its memory; after an outage of the workers'
network thousands come back while the first ones still stand.
"""

import select
from collections.abc import Sequence

import gevent
from gevent import monkey

from bridge.background import every
from bridge.long_poll.parked import Parked
from bridge.long_poll.poll import Poll

ROUND_SECONDS = 1.5  # in which each parked poll is looked at once
AT_ONCE = 500  # sockets looked at without letting others run: less than a millisecond

_poll = monkey.get_original("select", "poll")  # gevent's own has an event loop's watcher for each socket


def watch(parked: Parked) -> gevent.Greenlet:
    """Let go of the polls whose clients have gone, for as long as this process lives."""
    return every(ROUND_SECONDS / 10, "notice hang-ups", lambda: look(parked))


def look(parked: Parked) -> None:
    """Look once at each poll that waits; the looks are spread over the round. None is let go while a claim for it is
    under way."""
    polls = list(parked.all())
    for start in range(0, len(polls), AT_ONCE):
        for poll in _gone(polls[start : start + AT_ONCE]):
            parked.answer(poll)
        gevent.sleep(ROUND_SECONDS * AT_ONCE / max(len(polls), AT_ONCE))


def _gone(polls: Sequence[Poll]) -> list[Poll]:
    """Those of the polls whose clients have closed their end, as far as the sockets tell: one system call."""
    sockets, gone = _poll(), []
    by_file: dict[int, Poll] = {}
    for poll in polls:
        if poll.offered or poll.done.is_set() or poll.connection is None:
            continue
        if (file := poll.connection.fileno()) < 0:
            gone.append(poll)
        else:
            by_file[file] = poll
            sockets.register(file, select.POLLRDHUP)
    return gone + [by_file[file] for file, _ in sockets.poll(0)]
