"""The numbers of a tenant at a glance. Counts come from counters, all else from the ends of indexes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from bridge.insight import counters, gauges
from bridge.insight.durations import medians
from bridge.runtime import Runtime
from bridge.workers.registry import WorkerRegistry


class Statistics(NamedTuple):
    """What GET /statistics shows."""

    counts: list[counters.Count]
    oldest: dict[str, float]  # content type → for how long its oldest claimable job has waited, in seconds
    medians: Sequence[Row[Any]]
    parked_polls: int | None  # None: Redis does not answer
    sweeps: Sequence[Row[Any]]
    backlog: dict[str, int]


def statistics(runtime: Runtime, seen: WorkerRegistry, tenant: str) -> Statistics:
    """Return the numbers of a tenant; the sweeps and their backlog are those of the whole bridge."""
    with runtime.engine.connect() as connection:
        jobs = counters.of_tenant(connection, tenant)
        waiting = [(tenant, count.content_type) for count in jobs if count.status == "pending"]
        return Statistics(
            jobs,
            gauges.oldest(connection, waiting),
            medians(connection, tenant),
            runtime.mirror.breaker.ask("read parked polls", lambda: seen.parked(tenant)),
            gauges.sweeps(connection),
            gauges.backlog(connection),
        )
