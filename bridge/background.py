"""Background work that goes on for as long as its process lives, whatever becomes of one run."""

from collections.abc import Callable

import gevent
import redis
import structlog
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

from bridge.db import sqlstate

log = structlog.get_logger("bridge.background")

# A server is away; anything else is logged with its trace.
EXPECTED = (SQLAlchemyError, redis.RedisError, BrokerError, OSError)


class Supervised:
    """Runs a piece of work, which `work` names in the log; a failure ends nothing.

    It is logged once per kind and outage, not at every run, and once more when the work succeeds again. Returns whether
    it succeeded.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._told: set[str] = set()

    def __call__(self, do: Callable[[], object]) -> bool:
        try:
            do()
        except Exception as error:  # Whatever it is, the next run may succeed; otherwise this would stop for ever.
            kind = type(error).__name__
            if kind not in self._told:
                self._told.add(kind)
                trace = None if isinstance(error, EXPECTED) else error
                log.warning(
                    "background_work_failed", work=self._work, error=kind, sqlstate=sqlstate(error), exc_info=trace
                )
            return False
        if self._told:
            self._told.clear()
            log.info("background_work_recovered", work=self._work)
        return True


def every(seconds: float, work: str, do: Callable[[], object]) -> gevent.Greenlet:
    """Run `do` now and again `seconds` after each run, in a separate greenlet."""
    supervised = Supervised(work)

    def run() -> None:
        while True:
            supervised(do)
            gevent.sleep(seconds)

    greenlet: gevent.Greenlet = gevent.spawn(run)
    return greenlet


def once(seconds: float, work: str, do: Callable[[], object]) -> None:
    """Run `do` until it has succeeded once, `seconds` after each failure, in a separate greenlet.

    For what a process does at its start with a server that may be away: its start must not wait for that.
    """
    supervised = Supervised(work)

    def run() -> None:
        while not supervised(do):
            gevent.sleep(seconds)

    gevent.spawn(run)
