"""The circuit breaker of one process for Redis: a Redis that just failed or refused is left alone for a while.

A Redis that answers but takes no writes (READONLY, OOM, MISCONF, NOREPLICAS, LOADING, NOPERM, a version without LMOVE)
is as good as none: claims come from PostgreSQL. What it says about a single key (`is_bad_key`) concerns that key alone.
"""

import re
import time
from collections.abc import Callable
from typing import TypeVar

import redis
import structlog

log = structlog.get_logger("bridge.redis_breaker")
T = TypeVar("T")

AWAY_SECONDS = 1.0  # for which Redis is left alone after a failure, so that it cannot slow every request;
LONGEST_AWAY_SECONDS = 8.0  # twice as long after each further one: a Redis that hangs costs 2 s at every look
TAKE = "take"  # the command that everything depends on: it reads, writes and runs a script

_BAD_KEY = re.compile(r"WRONGTYPE|not an integer|would overflow|not a valid float")
_CODE = re.compile(r"[A-Z]{3,20}\b")


def is_bad_key(error: object) -> bool:
    """Return whether Redis refused only because of what one key holds; another key would not be refused."""
    return isinstance(error, redis.ResponseError) and _BAD_KEY.search(str(error)) is not None


def refusal(error: Exception) -> str:
    """Name the kind of failure, without anything that Redis holds: `MISCONF`, `ReadOnlyError`, `ConnectionError`."""
    code = _CODE.match(str(error)) if type(error) is redis.ResponseError else None
    return code.group() if code else type(error).__name__


class RedisBreaker:
    """Shared by everything in a process that talks to Redis. Nothing here raises."""

    def __init__(self) -> None:
        self._away_until = 0.0
        self._failures = 0
        self._taking_failed = False

    @property
    def away(self) -> bool:
        """Return whether Redis failed a moment ago and is being left alone."""
        return time.monotonic() < self._away_until

    @property
    def lost(self) -> bool:
        """Return whether Redis has failed or refused and has not served since."""
        return self._failures > 0

    def ask(self, doing: str, question: Callable[[], T]) -> T | None:
        """Return what Redis answers to a question; None while it is left alone, or if it fails now."""
        if self.away:
            return None
        try:
            return question()
        except redis.RedisError as error:
            self.failed(doing, error)
            return None

    def failed(self, doing: str, error: Exception) -> None:
        """Note that Redis failed or refused; logged once per outage. A bad key is no such failure."""
        if is_bad_key(error):
            return
        if self._failures == 0:
            log.warning("redis_unavailable", doing=doing, error=refusal(error))
        self._taking_failed |= doing == TAKE
        if not self.away:
            longer = min(AWAY_SECONDS * 2**self._failures, LONGEST_AWAY_SECONDS)
            self._away_until = time.monotonic() + longer
            self._failures = min(self._failures + 1, 10)

    def answered(self, doing: str) -> None:
        """Note that Redis did what was asked. If it refused to take, only taking shows that it serves again."""
        if self._failures and (doing == TAKE or not self._taking_failed):
            log.info("redis_recovered")
            self._failures = 0
            self._away_until = 0.0
            self._taking_failed = False

    def try_again(self) -> None:
        """Let the next look try at once: something was heard from Redis."""
        self._away_until = 0.0
