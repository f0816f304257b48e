"""A tenant's whole state on one page: its queues, its workers, what went wrong lately, and what needs attention."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, text

from bridge.blobs.quotas import nearly_full
from bridge.insight import counters, gauges, history
from bridge.insight.attention import Need, QueueNow, needs
from bridge.insight.explain import WAITING
from bridge.outbox.pipeline_queue import pipeline_queue
from bridge.outbox.undelivered import undelivered
from bridge.runtime import Runtime
from bridge.workers.registry import WorkerRegistry
from bridge.workers.roster import WorkerInfo, roster_of
from models.job import one_of
from models.job_state import BAD_ENDS, JobState, OutcomeState

MOST_QUEUES = 100  # shown, those with the most to do
MOST_REASONS = 10
MOST_COUNTED = 1000

# The newest bad ends of all tenants, as many as can be looked at; those of the tenant by reason. The job of each is
# looked up by its ID (OFFSET 0): a join may read the whole table instead.
REASONS = text(f"""
SELECT how, why, count(*) AS times, max(ended_at) AS last, (array_agg(job_id ORDER BY ended_at DESC))[1] AS job_id
FROM (
  SELECT a.how, left(a.why, 150) AS why, a.ended_at, a.job_id FROM (
    SELECT job_id, how, why, ended_at FROM job_attempts
    WHERE {one_of("how", BAD_ENDS)} AND ended_at > now() - interval '1 hour' ORDER BY ended_at DESC LIMIT 2000
  ) a, LATERAL (SELECT tenant FROM remote_jobs WHERE id = a.job_id OFFSET 0) j WHERE j.tenant = :tenant
) bad GROUP BY how, why ORDER BY times DESC, last DESC LIMIT {MOST_REASONS}
""")
FAILING = text(f"""
SELECT count(*) FROM (
  SELECT FROM continuations WHERE tenant = :tenant AND state = '{OutcomeState.FAILING}' LIMIT {MOST_COUNTED}
) failing
""")


class Overview(NamedTuple):
    """The content of the dashboard's first page."""

    by_state: dict[str, int]
    queues: list[QueueNow]
    more_queues: int
    workers_waiting: int
    workers_busy: int
    workers_paused: int
    redis: bool
    reasons: Sequence[Row[Any]]
    failing: int  # continuations, counted to MOST_COUNTED
    sweeps: Sequence[Row[Any]]
    needs: list[Need]


def overview(runtime: Runtime, seen: WorkerRegistry, tenant: str) -> Overview:
    """Read all of it, each part by an index or from counters. Raises SQLAlchemyError."""
    known = roster_of(runtime, seen, tenant)
    with runtime.engine.connect() as connection:
        counts = counters.of_tenant(connection, tenant)
        waiting = [(tenant, count.content_type) for count in counts if count.status == JobState.PENDING]
        oldest = gauges.oldest(connection, waiting[:MOST_COUNTED])
        lately = history.last_hour(connection, tenant)
        reasons = connection.execute(REASONS, {"tenant": tenant}).all()
        failing = int(connection.scalar(FAILING, {"tenant": tenant}) or 0)
        pipeline = pipeline_queue(connection, runtime.settings.continuation_queue)
        sweeps = gauges.sweeps(connection)
        webhooks = undelivered(connection, [tenant], runtime.settings.webhook_retry_seconds)
        full = nearly_full(connection, runtime.settings.limits, tenant)
        now = connection.scalar(text("SELECT now()"))
    waiting_hands = {id(hand) for hand in known.hands if waits(hand, now)}
    queues = _queues(counts, oldest, lately, known.hands, waiting_hands)
    by_state = dict.fromkeys(map(str, JobState), 0)
    for count in counts:
        by_state[count.status] += count.jobs
    return Overview(
        by_state,
        queues[:MOST_QUEUES],
        max(0, len(queues) - MOST_QUEUES),
        len(waiting_hands),
        sum(hand.jobs_in_hand > 0 for hand in known.hands),
        sum(hand.pause is not None for hand in known.hands),
        known.redis,
        reasons,
        failing,
        sweeps,
        needs(queues, known, sweeps, failing, pipeline, tenant, webhooks, full),
    )


def waits(hand: WorkerInfo, now: Any) -> bool:
    """Return whether a worker asks for jobs now, as far as is known, and has room for one."""
    return hand.pause is None and hand.last_seen is not None and hand.last_seen > now - WAITING and hand.slots.free != 0


def _queues(
    counts: list[counters.Count],
    oldest: dict[str, float],
    lately: dict[str, Row[Any]],
    hands: list[WorkerInfo],
    waits: set[int],
) -> list[QueueNow]:
    jobs = {(count.content_type, count.status): count.jobs for count in counts}
    workers: dict[str, list[WorkerInfo]] = {}
    for hand in hands:
        for content_type in hand.content_types:
            workers.setdefault(content_type, []).append(hand)
    made = []
    for content_type in {count.content_type for count in counts} | lately.keys() | workers.keys():
        hour, its = lately.get(content_type), workers.get(content_type, [])
        made.append(
            QueueNow(
                content_type,
                jobs.get((content_type, JobState.PENDING), 0),
                jobs.get((content_type, JobState.PROCESSING), 0),
                oldest.get(content_type),
                sum(id(hand) in waits for hand in its),
                sum(hand.pause is None for hand in its),
                hour.completed if hour else 0,
                hour.failed if hour else 0,
                hour.median_seconds if hour else None,
                hour.p95_seconds if hour else None,
            )
        )
    return sorted(made, key=lambda queue: (-queue.weight, queue.content_type))
