"""Numbers about the whole bridge, for /metrics: what waits, what is stuck, when each sweep ran and what it found."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from bridge.blobs.collect import UNNAMED
from bridge.blobs.quotas import most_bytes
from bridge.insight import counters
from bridge.outbox.pipeline_queue import PipelineQueue, pipeline_queue
from bridge.queues import Queue
from bridge.runtime import Runtime
from models.job import NOT_DUE, QUEUE_CLOCK_RUNS
from models.job_state import OutcomeState, WebhookState

MOST_CALLS = 10_000  # webhooks
STUCK = text(f"""
SELECT count(*) AS waiting, CAST(extract(epoch FROM now() - min(created_at)) AS float) AS oldest,
  count(*) FILTER (WHERE state = '{OutcomeState.FAILING}') AS failing
FROM continuations WHERE next_at IS NOT NULL
""")
# Not delivered, counted to a bound: of some, many may wait for one receiver.
CALLS = text(f"""
SELECT count(*) AS waiting, count(*) FILTER (WHERE state = '{WebhookState.FAILING}') AS failing,
  CAST(extract(epoch FROM now() - min(created_at)) AS float) AS oldest,
  CAST(extract(epoch FROM now() - min(next_at)) AS float) AS overdue
FROM (SELECT state, created_at, next_at FROM webhooks WHERE next_at IS NOT NULL LIMIT {MOST_CALLS}) w
""")
SWEEPS = text(
    "SELECT name, CAST(extract(epoch FROM clock_timestamp() - ran_at) AS float) AS age, seconds, changed, total"
    " FROM sweeps ORDER BY name"
)
# The head of each list that holds a job which may be claimed.
OLDEST = text("""
SELECT q.content_type, CAST(extract(epoch FROM now() - min(oldest.queued_at)) AS float) AS seconds
FROM unnest(CAST(:tenants AS text[]), CAST(:content_types AS text[])) AS q(tenant, content_type),
  generate_series(0, 2) AS p(rank), LATERAL (
  SELECT queued_at FROM remote_jobs
  WHERE tenant = q.tenant AND content_type = q.content_type AND status = 'pending' AND completed_at IS NULL
    AND priority = p.rank AND queued_at <= now()
  ORDER BY queued_at LIMIT 1
) oldest
GROUP BY q.content_type
""")
MOST_TYPES = 100  # content types with separate numbers, those with the most jobs; the others share one
OTHER = "(other)"  # no content type has this name
MOST_QUEUES = 500  # whose mirror is measured
MOST_NOT_DUE = 10_000
# The pending jobs that do not belong in the mirror yet.
NOT_MIRRORED = text(f"""
SELECT tenant, content_type, count(*) AS jobs FROM (
  SELECT tenant, content_type FROM remote_jobs WHERE {NOT_DUE} LIMIT {MOST_NOT_DUE}
) not_yet GROUP BY tenant, content_type
""")
MOST_BACKLOG = 1000


def _counted(rows: str) -> str:
    """Return the SQL that counts these rows (a FROM clause), to a thousand."""
    return f"(SELECT count(*) FROM (SELECT FROM {rows} LIMIT {MOST_BACKLOG}) o)"


# What each sweep would find to do now.
BACKLOG = text(f"""
SELECT {_counted(f"remote_jobs WHERE {QUEUE_CLOCK_RUNS} AND timeout_at <= now()")}
    + {_counted("remote_jobs WHERE lease_expires_at <= now()")} AS expire_jobs,
  {_counted(f"remote_jobs WHERE {NOT_DUE} AND available_at <= now()")} AS release_due_jobs,
  {_counted("continuations WHERE next_at <= now() AND sent_at IS NULL")} AS continue_ingestion,
  {_counted("continuations WHERE next_at <= now() AND sent_at IS NOT NULL")} AS repeat_outcomes,
  {_counted("job_moves")} AS fold_counts,
  {_counted("uploads WHERE expires_at < now()")} + {_counted(f"upload_segments WHERE {UNNAMED}")} AS collect_uploads
""")
# Objects that no upload names and that are not removed yet, and what is begun and not counted.
GAP = text(f"""
SELECT {_counted("upload_segments WHERE upload_id IS NULL")}
  + {_counted("upload_segments WHERE size IS NULL AND upload_id IS NOT NULL")}
""")


def sweeps(connection: Connection) -> Sequence[Row[Any]]:
    """Return of each sweep: seconds since it ran (`age`), how long that took, what it changed, then and in `total`."""
    return connection.execute(SWEEPS).all()


def oldest(connection: Connection, queues: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Return, by content type of these queues (tenant, content type), how long (s) its oldest claimable job has waited.

    A content type without a claimable job is left out.
    """
    tenants, content_types = zip(*queues, strict=True) if (queues := list(queues)) else ((), ())
    found = connection.execute(OLDEST, {"tenants": [*tenants], "content_types": [*content_types]})
    return {row.content_type: row.seconds for row in found}


def backlog(connection: Connection) -> dict[str, int]:
    """Return, by sweep, how much of its work is due and not done; counted to a thousand."""
    return dict(connection.execute(BACKLOG).one()._mapping)


class Facts(NamedTuple):
    """What /metrics shows of the whole bridge."""

    depth: dict[tuple[str, ...], float]  # unfinished jobs, by content type and status
    oldest: dict[str, float]
    stuck: Row[Any]  # continuations not handed over
    sweeps: Sequence[Row[Any]]
    pipeline: PipelineQueue | None
    mirror_gap: int | None  # None: Redis does not answer
    upload_gap: int
    calls: Row[Any]  # webhooks not delivered
    uploads: Row[Any]  # bytes of all, of the fullest tenant and of the fullest key


def read(runtime: Runtime) -> Facts:
    """Read unfinished jobs, the oldest claimable, continuations not handed over, the sweeps, and what Redis lacks."""
    depth: Counter[tuple[str, ...]] = Counter()
    with runtime.engine.connect() as connection:
        unfinished = counters.unfinished(connection)
        jobs: Counter[str] = Counter()
        for row in unfinished:
            jobs[row.content_type] += row.jobs
        shown = {content_type for content_type, _ in jobs.most_common(MOST_TYPES)}
        for row in unfinished:
            depth[row.content_type if row.content_type in shown else OTHER, row.status] += row.jobs
        pending = [row for row in unfinished if row.status == "pending"]
        heads = [(row.tenant, row.content_type) for row in pending if row.content_type in shown]
        wanted = Counter({Queue(row.tenant, row.content_type): row.jobs for row in pending})
        for row in connection.execute(NOT_MIRRORED):
            wanted[Queue(row.tenant, row.content_type)] -= row.jobs
        return Facts(
            dict(depth),
            oldest(connection, heads),
            connection.execute(STUCK).one(),
            sweeps(connection),
            pipeline_queue(connection, runtime.settings.continuation_queue),
            _gap(runtime, wanted),
            int(connection.scalar(GAP) or 0),
            connection.execute(CALLS).one(),
            most_bytes(connection),
        )


def _gap(runtime: Runtime, wanted: Counter[Queue]) -> int | None:
    """Return by how many IDs the mirror differs from what it should hold, over the longest queues.

    IDs that are on their way at this moment count too. None if Redis does not answer.
    """
    queues = dict(wanted.most_common(MOST_QUEUES))
    there = runtime.mirror.breaker.ask("measure the mirror", lambda: runtime.mirror.lengths(queues))
    return None if there is None else sum(abs(jobs - there[queue]) for queue, jobs in queues.items())
