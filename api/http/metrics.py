"""Prometheus metrics: counters kept by each process, and gauges read from PostgreSQL when asked."""

import collections
from collections.abc import Iterable
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bridge.insight.gauges import MOST_TYPES, OTHER, read
from bridge.runtime import Runtime


class Summed:
    """A counter that is added up in memory and told to the others a few times a second.

    Each telling is a search, a lock and a write into a shared file: at each request they cost a twentieth of it.
    """

    _all: ClassVar[list["Summed"]] = []

    def __init__(self, name: str, told: str, labels: list[str]) -> None:
        self._counter = Counter(name, told, labels)
        self._since: collections.Counter[str] = collections.Counter()
        self._all.append(self)

    def inc(self, label: str) -> None:
        self._since[label] += 1

    @classmethod
    def tell(cls) -> None:
        """Tell what came since the last time."""
        for one in cls._all:
            since, one._since = one._since, collections.Counter()
            for label, count in since.items():
                one._counter.labels(label).inc(count)


CREATED = Summed("bridge_jobs_created_total", "Jobs created over HTTP.", ["content_type"])
CLAIMED = Summed("bridge_jobs_claimed_total", "Claims handed to workers.", ["content_type"])
FINISHED = Summed("bridge_results_accepted_total", "Results accepted, by the job's state after it.", ["status"])
RESPONSES = Summed("bridge_responses_total", "Responses, by the class of their status.", ["status"])
REDIS_AWAY = Gauge("bridge_redis_away", "Whether an API process sees Redis as away.", multiprocess_mode="livemax")
PARKED = Gauge("bridge_parked_polls", "Polls that wait for a job.", multiprocess_mode="livesum")


_labelled: set[str] = set()


def label(content_type: str) -> str:
    """A content type as a label: those that came first have their own, whatever a key makes up shares one."""
    if content_type in _labelled:
        return content_type
    if len(_labelled) >= MOST_TYPES:
        return OTHER
    _labelled.add(content_type)
    return content_type


class Truth:
    """What PostgreSQL knows: the queues, continuations not handed over, the sweeps and what they repaired."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterable[Metric]:
        facts = read(self._runtime)
        depth = GaugeMetricFamily("bridge_jobs", "Unfinished jobs.", labels=["content_type", "status"])
        for (content_type, status), count in facts["depth"].items():
            depth.add_metric([content_type, status], count)
        oldest = GaugeMetricFamily(
            "bridge_oldest_claimable_seconds",
            "For how long the oldest job that may be claimed has waited.",
            labels=["content_type"],
        )
        for content_type, seconds in facts["oldest"].items():
            oldest.add_metric([content_type], seconds)
        stuck = GaugeMetricFamily("bridge_continuations_waiting", "Outcomes not yet handed to the pipeline.")
        stuck.add_metric([], facts["stuck"].waiting)
        failing = GaugeMetricFamily("bridge_continuations_failing", "Of these, those that were tried often in vain.")
        failing.add_metric([], facts["stuck"].failing)
        age = GaugeMetricFamily("bridge_sweep_age_seconds", "Since the sweep last ran.", labels=["sweep"])
        changed = CounterMetricFamily("bridge_sweep_changed", "What its runs moved or repaired.", labels=["sweep"])
        took = GaugeMetricFamily("bridge_sweep_seconds", "How long its last run took.", labels=["sweep"])
        for sweep in facts["sweeps"]:
            age.add_metric([sweep.name], float(sweep.age))
            changed.add_metric([sweep.name], sweep.total)
            took.add_metric([sweep.name], sweep.seconds)
        gap = GaugeMetricFamily("bridge_upload_objects_unnamed", "Stored objects that no upload counts, to a thousand.")
        gap.add_metric([], facts["upload_gap"])
        return [depth, oldest, stuck, failing, age, changed, took, gap]


def render(runtime: Runtime) -> bytes:
    """The text of /metrics, summed over all API processes of this machine.

    Of the others it knows what they had counted up to a tenth of a second ago.
    """
    Summed.tell()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # reads what gunicorn_conf.py named in the environment
    registry.register(Truth(runtime))
    return generate_latest(registry)
