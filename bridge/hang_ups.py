"""Parked polls whose clients have hung up: noticed within two seconds, whether or not there is a job for them.

Until then a dead poll holds a connection, its place in the limits and its memory; after an outage of the workers'
network thousands come back while the first ones still stand.
"""

import gevent

from bridge.parked import Parked
from bridge.steadily import every

ROUND_SECONDS = 1.5  # in which each parked poll is looked at once
AT_ONCE = 200  # sockets looked at without letting others run: about a millisecond


def watch(parked: Parked) -> gevent.Greenlet:
    """Let go of the polls whose clients have gone, for as long as this process lives."""
    return every(ROUND_SECONDS / 10, "notice hang-ups", lambda: look(parked))


def look(parked: Parked) -> None:
    """Look once at each poll that waits; the looks are spread over the round. None is let go while a claim for it is
    under way."""
    polls = list(parked.all())
    for start in range(0, len(polls), AT_ONCE):
        for poll in polls[start : start + AT_ONCE]:
            if not poll.offered and not poll.done.is_set() and poll.gone():
                parked.answer(poll)
        gevent.sleep(ROUND_SECONDS * AT_ONCE / max(len(polls), AT_ONCE))
