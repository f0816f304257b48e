"""The text of /metrics: counters kept by each process, and gauges read from PostgreSQL and Redis at each scrape."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from api.http.counted import Summed
from bridge.insight.gauges import Facts, read
from bridge.insight.scaling import scaling_of_all
from bridge.insight.totals import add_totals
from bridge.key_limits import KeyLimits
from bridge.runtime import Runtime
from bridge.workers.registry import WorkerRegistry


class Whole:
    """The counts of all processes of this machine and of Celery's anywhere, and what PostgreSQL and Redis know."""

    def __init__(self, runtime: Runtime, seen: WorkerRegistry) -> None:
        self._runtime, self._seen = runtime, seen

    def collect(self) -> Iterable[Metric]:
        # It reads the directory that gunicorn_conf.py named in the environment.
        counted = multiprocess.MultiProcessCollector(None).collect()
        with self._runtime.engine.connect() as connection:
            yield from add_totals(connection, counted)
        yield from truth(read(self._runtime), self._runtime.settings.limits)
        yield from _scaling(self._runtime, self._seen)


def _gauge(name: str, told: str, values: dict[tuple[str, ...], float], *labels: str) -> Metric:
    metric = GaugeMetricFamily(name, told, labels=labels)
    for named, value in values.items():
        metric.add_metric(named, value)
    return metric


def truth(facts: Facts, limits: KeyLimits) -> Iterable[Metric]:
    """Yield the gauges of what PostgreSQL and Redis know."""
    yield _gauge("bridge_jobs", "Unfinished jobs.", facts.depth, "content_type", "status")
    told = "For how long the oldest job that may be claimed has waited."
    oldest: dict[tuple[str, ...], float] = {(kind,): seconds for kind, seconds in facts.oldest.items()}
    yield _gauge("bridge_oldest_claimable_seconds", told, oldest, "content_type")
    stuck = facts.stuck
    yield _gauge("bridge_continuations_waiting", "Outcomes not yet handed to the pipeline.", {(): stuck.waiting})
    yield _gauge("bridge_continuations_failing", "Of these, those that were tried often.", {(): stuck.failing})
    yield _gauge("bridge_continuations_oldest_seconds", "The age of the oldest of these.", {(): stuck.oldest or 0.0})
    calls = facts.calls
    yield _gauge("bridge_webhooks_waiting", "Webhooks not yet delivered, counted to 10000.", {(): calls.waiting})
    yield _gauge("bridge_webhooks_failing", "Of these, those that were tried often.", {(): calls.failing})
    yield _gauge("bridge_webhooks_oldest_seconds", "The age of the oldest of these.", {(): calls.oldest or 0.0})
    told = "For how long the webhook that should have been sent first has been due."
    yield _gauge("bridge_webhooks_overdue_seconds", told, {(): max(0.0, calls.overdue or 0.0)})
    if facts.mirror_gap is not None:
        told = "Claimable jobs that the mirror lacks, plus IDs in it that are not claimable."
        yield _gauge("bridge_mirror_gap", told, {(): facts.mirror_gap})
    if facts.pipeline is not None:
        queue = facts.pipeline
        told = "Messages waiting in the pipeline's queue."
        yield _gauge("bridge_pipeline_queue_messages", told, {(queue.queue,): queue.messages}, "queue")
        told = "For how long no message has been taken from it while there were some."
        yield _gauge(
            "bridge_pipeline_queue_untouched_seconds", told, {(queue.queue,): queue.untouched_seconds}, "queue"
        )
    sweeps = facts.sweeps
    told = "Seconds since the sweep last ran."
    yield _gauge("bridge_sweep_age_seconds", told, {(one.name,): float(one.age) for one in sweeps}, "sweep")
    told = "How long the sweep's last run took."
    yield _gauge("bridge_sweep_seconds", told, {(one.name,): one.seconds for one in sweeps}, "sweep")
    changed = CounterMetricFamily("bridge_sweep_changed", "Items that the sweep moved or repaired.", labels=["sweep"])
    for one in sweeps:
        changed.add_metric([one.name], one.total)
    yield changed
    told = "Stored objects that belong to no upload, counted to a thousand."
    yield _gauge("bridge_upload_objects_unnamed", told, {(): facts.upload_gap})
    yield _gauge("bridge_upload_bytes", "Bytes of all uploads, by their announced lengths.", {(): facts.uploads.whole})
    told = "The highest share of its quota that a tenant, a key, and a tenant's jobs (kept) take; 1 is all of it."
    shares: dict[tuple[str, ...], float] = {
        ("tenant",): int(facts.uploads.tenant) / limits.tenant_upload_bytes,
        ("key",): int(facts.uploads.key) / limits.upload_bytes,
        ("kept",): int(facts.uploads.kept) / limits.tenant_kept_bytes,
    }
    yield _gauge("bridge_upload_quota_used", told, shares, "of")


_SCALING = {
    "claimable": "Jobs that may be claimed now.",
    "processing": "Jobs in the hands of workers.",
    "workers_waiting": "Workers that wait for a job of this type.",
    "workers_busy": "Workers that hold a job of this type.",
    "oldest_seconds": "The age of the oldest job that may be claimed.",
    "median_seconds": "How long a job takes, the median of the last ones.",
    "workers_wanted": "How many workers would clear the queue within 600 s.",
}


def _scaling(runtime: Runtime, seen: WorkerRegistry) -> Iterable[Metric]:
    """Yield the numbers of GET /scaling."""
    scales = scaling_of_all(runtime, seen)
    for name, told in _SCALING.items():
        values: dict[tuple[str, ...], float] = {
            (tenant, scale.content_type): value
            for tenant, scale in scales
            if (value := scale._asdict()[name]) is not None
        }
        yield _gauge(f"bridge_scaling_{name}", told, values, "tenant", "content_type")


def render(runtime: Runtime, seen: WorkerRegistry) -> bytes:
    """Return the text of /metrics.

    The counts of other processes may be a tenth of a second old, Celery's some seconds.
    """
    Summed.tell()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Whole(runtime, seen))
    return generate_latest(registry)
