"""Why is this job where it is? The facts, each read by an index; sentences.py puts them into words."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from bridge.insight.durations import estimated_completion, expected_seconds
from bridge.jobs.read import LONGEST_WHY, STANDING, find
from bridge.jobs.remote_sources import is_remote, why_refused
from bridge.outbox.pipeline_queue import PipelineQueue, pipeline_queue
from bridge.runtime import Runtime
from bridge.workers.registry import WorkerRegistry
from bridge.workers.roster import WorkerInfo, roster_of
from models.job_state import JobState

MOST_AHEAD = 1000
MOST_ATTEMPTS = 5
# A poll that waits is noted every 10 s: after this time without one a worker no longer waits.
WAITING = timedelta(seconds=25)

# The jobs served before it: in each list of a higher priority all that are due, in its own list the older ones.
AHEAD = text(f"""
SELECT count(*) FROM (
  SELECT FROM generate_series(0, CAST(:priority AS int)) AS p(rank), LATERAL (
    SELECT FROM remote_jobs
    WHERE tenant = :tenant AND content_type = :content_type AND status = 'pending' AND completed_at IS NULL
      AND priority = p.rank
      AND queued_at <= CASE WHEN p.rank < :priority THEN greatest(now(), :queued_at) ELSE :queued_at END
      AND (p.rank < :priority OR (queued_at, id) < (:queued_at, :id))
    ORDER BY queued_at, id LIMIT {MOST_AHEAD} -- in the order of its index
  ) before
  LIMIT {MOST_AHEAD}
) ahead
""")
ATTEMPTS = text(f"""
SELECT attempt, worker_id, how, left(why, {LONGEST_WHY}) AS why, claimed_at, ended_at
FROM job_attempts WHERE job_id = :id
ORDER BY attempt DESC LIMIT {MOST_ATTEMPTS}
""")
CONTINUATION = text("""
SELECT n, created_at, sent_at, confirmed_at, next_at, tries, left(last_error, 2000) AS last_error
FROM continuations WHERE job_id = :id AND n = :n
""")
WEBHOOK = text("""
SELECT receiver, state, tries, next_at, delivered_at, left(last_error, 500) AS last_error
FROM webhooks WHERE job_id = :id AND n = :n
""")
# A key that limits nothing allows every type.
ALLOWED = text("""
SELECT EXISTS (
  SELECT FROM api_keys WHERE tenant = :tenant AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    AND scopes && ARRAY['work', 'admin'] AND (content_types IS NULL OR :content_type = ANY (content_types))
)
""")


class Facts(NamedTuple):
    """All that is known about where a job is and why."""

    job: Row[Any]
    now: datetime
    attempts: Sequence[Row[Any]]  # the last ones that ended, newest first
    jobs_ahead: int | None = None  # while pending; MOST_AHEAD means that many or more
    accepting: Sequence[WorkerInfo] = ()  # the workers that were seen asking for its type
    denied: Sequence[WorkerInfo] = ()  # those that ask for it with a key that does not allow it
    some_key_allows: bool = True
    redis: bool = True  # whether it is known who asks
    holder: WorkerInfo | None = None
    expected_seconds: float | None = None  # how long a job of its type runs
    starts_at: datetime | None = None  # an estimate
    completes_at: datetime | None = None  # an estimate
    source_refused: str | None = None  # why its source, at an address, is not asked
    continuation: Row[Any] | None = None
    webhook: Row[Any] | None = None
    pipeline: PipelineQueue | None = None  # of a job that has ended

    @property
    def active(self) -> list[WorkerInfo]:
        """Return the workers that can be relied on for its type: they wait now, or work on a job."""
        return [
            hand for hand in self.accepting if hand.pause is None and (hand.jobs_in_hand > 0 or self.is_waiting(hand))
        ]

    def is_waiting(self, hand: WorkerInfo) -> bool:
        """Return whether it asks for jobs now, as far as is known."""
        return hand.last_seen is not None and hand.last_seen > self.now - WAITING

    def free_slots(self, hand: WorkerInfo) -> int:
        """Return how many jobs it would take now; one if it waits and has not said."""
        if not self.is_waiting(hand):
            return 0
        if hand.slots.free is not None:
            return hand.slots.free
        return 1 if hand.jobs_in_hand == 0 else 0


def explain(runtime: Runtime, seen: WorkerRegistry, tenant: str, job_id: str, *, keys: bool) -> Facts:
    """Gather the facts about a job. `keys`: whether keys are asked for at all. Raises NotFound."""
    job = find(runtime, tenant, job_id, STANDING)
    with runtime.engine.connect() as connection:
        now = connection.scalar(text("SELECT now()"))
        attempts = connection.execute(ATTEMPTS, {"id": job.id}).all()
        facts = Facts(job, now, attempts)
        if job.status == JobState.PENDING:
            facts = _pending(connection, facts, keys)
        elif job.status != JobState.PROCESSING:
            outcome = {"id": job.id, "n": job.outcome_count}
            ended = connection.execute(CONTINUATION, outcome).one_or_none()
            called = connection.execute(WEBHOOK, outcome).one_or_none()
            queue = pipeline_queue(connection, runtime.settings.continuation_queue)
            return facts._replace(continuation=ended, webhook=called, pipeline=queue)
    if is_remote(job.source_file_path):
        facts = facts._replace(source_refused=why_refused(runtime.settings, job.source_file_path))
    hands, answered = roster_of(runtime, seen, tenant)
    if job.status == JobState.PROCESSING:
        worker = (job.key_id, job.worker_id)
        holder = next((hand for hand in hands if (hand.key_id, hand.worker_id) == worker), None)
        return facts._replace(holder=holder, completes_at=estimated_completion(runtime, job))
    facts = facts._replace(
        accepting=[hand for hand in hands if job.content_type in hand.content_types],
        denied=[hand for hand in hands if job.content_type in hand.denied_content_types],
        redis=answered,
    )
    return facts._replace(starts_at=starts_at(facts))


def _pending(connection: Connection, facts: Facts, keys: bool) -> Facts:
    job = facts.job
    where = {"tenant": job.tenant, "content_type": job.content_type}
    place = {**where, "priority": job.priority, "queued_at": job.queued_at, "id": job.id}
    return facts._replace(
        jobs_ahead=connection.scalar(AHEAD, place),
        some_key_allows=not keys or bool(connection.scalar(ALLOWED, where)),
        expected_seconds=expected_seconds(connection, job.tenant, job.content_type),
    )


def starts_at(facts: Facts) -> datetime | None:
    """Estimate when it is claimed, if each worker goes on as the recent ones did; None if no worker can be relied on.

    Rough: a worker that does not state its slots has one, and jobs of other types do not count.
    """
    active = facts.active
    if not active or facts.jobs_ahead is None or facts.expected_seconds is None:
        return None
    busy = sum(hand.jobs_in_hand for hand in active)
    idle = sum(map(facts.free_slots, active))
    if busy + idle == 0:
        return None
    turns = max(0, facts.jobs_ahead + 1 - idle) / (busy + idle)
    available_at: datetime = facts.job.available_at
    return max(facts.now, available_at) + timedelta(seconds=turns * facts.expected_seconds)
