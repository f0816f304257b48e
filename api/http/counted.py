"""What an API process counts: summed in memory, and shared with the machine's other processes a few times a second.

Each sharing is a search, a lock and a write to a shared file: at each request it would be a twentieth of the cost.
"""

import bisect
import collections
import time
from typing import Any, ClassVar

from prometheus_client import Counter, Gauge, Histogram

from bridge.insight.counting import FAMILIES, Family, Labels
from bridge.long_poll.dispatcher import Dispatcher
from bridge.runtime import Runtime

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Summed:
    """A counter, or a histogram where the family has buckets, summed over the processes of the machine."""

    _all: ClassVar[list["Summed"]] = []

    def __init__(self, family: Family) -> None:
        self._bounds = family.buckets
        self._metric: Any
        if family.buckets:
            self._metric = Histogram(family.name, family.told, family.labels, buckets=family.buckets)
        else:
            self._metric = Counter(family.name, family.told, family.labels)
        self._named = bool(family.labels)
        self._since: collections.Counter[tuple[tuple[str, ...], int]] = collections.Counter()
        self._seconds: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._all.append(self)

    def inc(self, *labels: str) -> None:
        self._since[labels, -1] += 1

    def observe(self, seconds: float, *labels: str) -> None:
        self._since[labels, bisect.bisect_left(self._bounds, seconds)] += 1
        self._seconds[labels] += seconds  # type: ignore[assignment]

    @classmethod
    def tell(cls) -> None:
        """Write what was counted since the last time to the shared file."""
        for one in cls._all:
            if one._since:
                one._tell()

    def _tell(self) -> None:
        since, self._since = self._since, collections.Counter()
        seconds, self._seconds = self._seconds, collections.Counter()
        for (labels, place), count in since.items():
            metric = self._metric.labels(*labels) if self._named else self._metric
            if place < 0:
                metric.inc(count)
            else:  # the library has no way to observe many at once
                metric._buckets[place].inc(count)
        for labels, took in seconds.items():
            (self._metric.labels(*labels) if self._named else self._metric)._sum.inc(took)


_REQUESTS = Family(
    "bridge_http_seconds",
    "From a request's head to its answer's, by route; includes the wait of a poll.",
    ("method", "route", "status"),
    (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0),
)
REQUESTS = Summed(_REQUESTS)
RESPONSES = Summed(Family("bridge_responses", "Responses, by the class of their status.", ("status",)))
ACCEPTED = Summed(Family("bridge_results_accepted", "Results accepted, by the job's state after it.", ("status",)))
REFUSED = Summed(Family("bridge_results_refused", "Results refused (stale, foreign, too late), by code.", ("code",)))
REDIS_AWAY = Gauge("bridge_redis_away", "Whether an API process sees Redis as away.", multiprocess_mode="livemax")
PARKED = Gauge("bridge_parked_polls", "Polls that wait for a job.", multiprocess_mode="livesum")
PARKED_FOR = Gauge(
    "bridge_parked_polls_by_type", "Polls that wait for a job of this type; one may wait for several.",
    ["content_type"], multiprocess_mode="livesum",
)  # fmt: skip
IN_USE = Gauge(
    "bridge_pool_connections_in_use", "Connections to PostgreSQL that are checked out of the API's pools.",
    ["pool"], multiprocess_mode="livesum",
)  # fmt: skip
POOL = Gauge("bridge_pool_connections", "The size of the API's pools.", ["pool"], multiprocess_mode="livesum")


class Told:
    """The bridge.insight.counting.Tally of an API process."""

    _summed: ClassVar[dict[str, Summed]] = {family.name: Summed(family) for family in FAMILIES}

    def inc(self, family: Family, *labels: str) -> None:
        self._summed[family.name].inc(*labels)

    def observe(self, family: Family, seconds: float, *labels: str) -> None:
        self._summed[family.name].observe(seconds, *labels)


def answered(method: str, route: str | None, status: int, began: float) -> None:
    """Count an answer. `route`: its rule, None where there is none; `began`: time.monotonic() at the request's head."""
    RESPONSES.inc(f"{status // 100}xx")
    named = method if method in _METHODS else "(other)"
    REQUESTS.observe(time.monotonic() - began, named, route or "(none)", str(status))


class Gauges:
    """What this process alone can tell: what waits here, and how many connections are in use."""

    def __init__(self, dispatcher: Dispatcher, runtimes: dict[str, Runtime]) -> None:
        self._dispatcher, self._runtimes = dispatcher, runtimes
        self._label = Labels(100)
        self._shown: set[str] = set()

    def set(self) -> None:
        """Bring them up to date."""
        PARKED.set(self._dispatcher.parked)
        waiting: collections.Counter[str] = collections.Counter()
        for content_type, polls in self._dispatcher.parked_for():
            waiting[self._label(content_type)] += polls
        for content_type in self._shown | waiting.keys():
            PARKED_FOR.labels(content_type).set(waiting[content_type])
        self._shown |= waiting.keys()
        for name, runtime in self._runtimes.items():
            pool: Any = runtime.engine.pool
            IN_USE.labels(name).set(pool.checkedout())
            POOL.labels(name).set(pool.size() + max(0, pool._max_overflow))
        REDIS_AWAY.set(next(iter(self._runtimes.values())).mirror.breaker.lost)
