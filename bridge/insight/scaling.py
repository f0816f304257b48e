"""How many workers each content type needs: what an autoscaler asks for."""

import math
from collections import Counter
from heapq import nsmallest
from typing import NamedTuple

from sqlalchemy import text

from bridge.insight import counters, gauges
from bridge.insight.durations import GUESS, GUESSES, medians
from bridge.insight.overview import waits
from bridge.runtime import Runtime
from bridge.workers.registry import WorkerRegistry
from bridge.workers.roster import roster_of
from models.job import NOT_DUE
from models.job_state import JobState

MOST_TYPES = 200  # of a list, those with the most to do
MOST_NOT_DUE = 10_000  # counted of all tenants' jobs that wait for their time

# The pending jobs that may not be claimed yet.
NOT_YET = text(f"""
SELECT content_type, count(*) AS jobs FROM (
  SELECT tenant, content_type FROM remote_jobs WHERE {NOT_DUE} AND available_at > now() LIMIT {MOST_NOT_DUE}
) due_later WHERE tenant = :tenant GROUP BY content_type
""")

CLEAR_WITHIN = 600  # seconds, unless another time is named
MOST_TENANTS, MOST_LINES = 20, 60  # in the list of all tenants
# Those with unfinished jobs first, the most first; then those whose content types have a median.
TENANTS = text("""
SELECT tenant FROM (
  SELECT tenant, sum(jobs) FILTER (WHERE status IN ('pending', 'processing')) AS jobs FROM job_counts GROUP BY tenant
  UNION ALL SELECT tenant, 0 FROM job_durations GROUP BY tenant
) known GROUP BY tenant ORDER BY max(coalesce(jobs, 0)) DESC, tenant LIMIT :most
""")


class Scale(NamedTuple):
    """A content type: what there is to do, and how many workers that needs."""

    content_type: str
    claimable: int
    processing: int
    workers_waiting: int | None  # None: Redis does not answer
    workers_busy: int  # with a job of this type
    oldest_seconds: float
    median_seconds: float
    workers_wanted: int


def scaling(
    runtime: Runtime, seen: WorkerRegistry, tenant: str, clear_within: int, content_type: str | None = None
) -> list[Scale]:
    """Return each content type with an unfinished job, a median or a worker, by name; or only the one that is named."""
    known = roster_of(runtime, seen, tenant)
    with runtime.engine.connect() as connection:
        jobs = {(count.content_type, count.status): count.jobs for count in counters.of_tenant(connection, tenant)}
        took = {row.content_type: row.median_seconds for row in medians(connection, tenant)}
        now = connection.scalar(text("SELECT now()"))
        not_yet = {row.content_type: row.jobs for row in connection.execute(NOT_YET, {"tenant": tenant})}
        ready: Counter[str] = Counter()
        at_work = Counter(kind for hand in known.hands for kind in hand.held_types)
        for hand in known.hands:
            for kind in hand.content_types:
                ready[kind] += waits(hand, now)
        types = {*took, *ready, *(kind for kind, status in jobs if status in _UNFINISHED)}
        to_do = {kind: sum(jobs.get((kind, status), 0) for status in _UNFINISHED) for kind in types}
        heaviest = nsmallest(MOST_TYPES, types, key=lambda kind: (-to_do[kind], kind))
        chosen = sorted(heaviest) if content_type is None else [content_type]
        oldest = gauges.oldest(connection, [(tenant, kind) for kind in chosen])
    scales = []
    for kind in chosen:
        claimable = max(0, jobs.get((kind, JobState.PENDING), 0) - not_yet.get(kind, 0))
        busy = jobs.get((kind, JobState.PROCESSING), 0)
        median = took.get(kind, GUESSES.get(kind, GUESS))
        wanted = workers_wanted(claimable + busy, median, clear_within)
        waiting = ready[kind] if known.redis else None
        scales.append(Scale(kind, claimable, busy, waiting, at_work[kind], oldest.get(kind, 0.0), median, wanted))
    return scales


_UNFINISHED = (JobState.PENDING, JobState.PROCESSING)


def workers_wanted(jobs: int, seconds: float, clear_within: int) -> int:
    """Return how many workers, each with one job at a time, do `jobs` of `seconds` each within `clear_within` seconds.

    No more than there are jobs, and at least one if there is any.
    """
    return min(jobs, max(1, math.ceil(jobs * seconds / clear_within)))


def scaling_of_all(runtime: Runtime, seen: WorkerRegistry) -> list[tuple[str, Scale]]:
    """Do the same for all tenants, zeros included: (tenant, scale); of many, those with the most to do."""
    with runtime.engine.connect() as connection:
        tenants = [row.tenant for row in connection.execute(TENANTS, {"most": MOST_TENANTS})]
    scales = [(tenant, one) for tenant in tenants for one in scaling(runtime, seen, tenant, CLEAR_WITHIN)]
    return nsmallest(MOST_LINES, scales, key=lambda pair: (-pair[1].claimable - pair[1].processing, *pair[:1]))
