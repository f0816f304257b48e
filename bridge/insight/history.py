"""The history that the dashboard draws: recorded by a sweep in short steps, joined into longer ones, and bounded.

    step     kept
    15 s     1 h
    5 min    24 h
    30 min   7 d

A longer step is made of the shorter ones: counts are added, depths and ages are the highest, the median is the mean of
the medians (weighted by how many were completed), the 95th percentile the highest one.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text
from sqlalchemy.dialects.postgresql import insert

from bridge.insight import counters, gauges
from bridge.runtime import Runtime
from models.history import history as table
from models.job import one_of
from models.job_state import FINAL

LOCK = 7268122  # an arbitrary number that no other advisory lock of the bridge uses
MOST_LINES = 500  # of one step, over all tenants: those with the most jobs
MOST_ENDED = 100_000  # jobs that one run looks at; beyond them a run's counts are too low
SETTLED_SECONDS = 2  # between the end of a step and its recording: jobs end before their transactions commit


class Span(NamedTuple):
    """How far back a plot goes, and in which steps."""

    name: str
    step: int  # seconds
    seconds: int


SPANS = {span.name: span for span in (Span("1h", 15, 3600), Span("24h", 300, 86400), Span("7d", 1800, 604800))}
_FINE = SPANS["1h"]
_EPOCH = "timestamptz '2000-01-01 00:00+00'"

TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
# From the step after the last recorded one to the last that is over.
DUE = text(f"""
SELECT greatest(last.at + s.length, over.at - make_interval(secs => :seconds)) AS since, over.at AS until
FROM (SELECT make_interval(secs => :step) AS length) s,
  LATERAL (SELECT date_bin(s.length, now() - interval '{SETTLED_SECONDS} seconds', {_EPOCH}) AS at) over,
  LATERAL (SELECT coalesce(max(at), over.at - 2 * s.length) AS at FROM history
    WHERE step = :step AND tenant = '' AND content_type = '') last
WHERE last.at + s.length < over.at
""")
# What ended in each of these steps; `started_at` is that of the last attempt.
ENDED = text(f"""
SELECT at, tenant, content_type,
  count(*) FILTER (WHERE status = 'completed') AS completed, count(*) FILTER (WHERE status = 'failed') AS failed,
  count(*) FILTER (WHERE status = 'timeout') AS timeout, count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY took) FILTER (WHERE status = 'completed') AS median_seconds,
  percentile_cont(0.95) WITHIN GROUP (ORDER BY took) FILTER (WHERE status = 'completed') AS p95_seconds
FROM (
  SELECT date_bin(make_interval(secs => :step), completed_at, {_EPOCH}) AS at, tenant, content_type, status,
    extract(epoch FROM completed_at - started_at) AS took
  FROM remote_jobs WHERE completed_at >= :since AND completed_at < :until AND {one_of("status", FINAL)}
  ORDER BY completed_at LIMIT {MOST_ENDED}
) ended GROUP BY at, tenant, content_type
""")
KEEP = insert(table).on_conflict_do_nothing()
MARK = text("""
INSERT INTO history (step, at, tenant, content_type)
VALUES (:step, CAST(:until AS timestamptz) - make_interval(secs => :step), '', '') ON CONFLICT DO NOTHING
""")
JOIN = text(f"""
INSERT INTO history (step, at, tenant, content_type, pending, processing, oldest_seconds, completed, failed, timeout,
  cancelled, median_seconds, p95_seconds)
SELECT :step, date_bin(make_interval(secs => :step), at, {_EPOCH}), tenant, content_type, max(pending), max(processing),
  max(oldest_seconds), sum(completed), sum(failed), sum(timeout), sum(cancelled),
  sum(median_seconds * completed) / nullif(sum(completed) FILTER (WHERE median_seconds IS NOT NULL), 0),
  max(p95_seconds)
FROM history WHERE step = :finer AND at >= :since AND at < :until
GROUP BY 2, tenant, content_type
ON CONFLICT DO NOTHING
""")
FORGET = text("DELETE FROM history WHERE step = :step AND at < now() - make_interval(secs => :seconds)")
SERIES = text("""
SELECT at, sum(pending) AS pending, sum(processing) AS processing, max(oldest_seconds) AS oldest_seconds,
  sum(completed) AS completed, sum(failed) AS failed, sum(timeout) AS timeout, sum(cancelled) AS cancelled,
  sum(median_seconds * completed) / nullif(sum(completed) FILTER (WHERE median_seconds IS NOT NULL), 0)
    AS median_seconds, max(p95_seconds) AS p95_seconds
FROM history
WHERE step = :step AND at > now() - make_interval(secs => :seconds) AND (tenant = :tenant OR tenant = '')
  AND (CAST(:content_type AS text) IS NULL OR content_type = :content_type OR tenant = '')
GROUP BY at ORDER BY at
""")
LAST_HOUR = text(f"""
SELECT content_type, sum(completed) AS completed, sum(failed) + sum(timeout) AS failed,
  sum(median_seconds * completed) / nullif(sum(completed) FILTER (WHERE median_seconds IS NOT NULL), 0)
    AS median_seconds, max(p95_seconds) AS p95_seconds
FROM history WHERE step = {_FINE.step} AND tenant = :tenant AND at > now() - interval '{_FINE.seconds} seconds'
GROUP BY content_type
""")


def record(runtime: Runtime) -> int:
    """Record the steps that are over and forget the old ones; return how many steps. One process at a time does it."""
    with runtime.engine.begin() as connection:
        if not connection.scalar(TRY_LOCK, {"lock": LOCK}):
            return 0
        recorded = _record_fine(connection)
        for finer, span in pairwise(SPANS.values()):
            due = connection.execute(DUE, {"step": span.step, "seconds": span.seconds}).one_or_none()
            if due is not None:
                bounds = {"since": due.since, "until": due.until}
                connection.execute(JOIN, {"step": span.step, "finer": finer.step, **bounds})
                connection.execute(MARK, {"step": span.step, "until": due.until})
                recorded += 1
        for span in SPANS.values():
            connection.execute(FORGET, {"step": span.step, "seconds": span.seconds + span.step})
    return recorded


def _record_fine(connection: Connection) -> int:
    step = {"step": _FINE.step}
    due = connection.execute(DUE, {**step, "seconds": _FINE.seconds}).one_or_none()
    if due is None:
        return 0
    ended = connection.execute(ENDED, {**step, "since": due.since, "until": due.until}).mappings()
    lines: dict[tuple[datetime, str, str], dict[str, Any]] = {
        (row["at"], row["tenant"], row["content_type"]): {**_NOTHING, **row} for row in ended
    }
    length = timedelta(seconds=_FINE.step)
    newest = due.until - length
    unfinished = counters.unfinished(connection)
    for row in unfinished:
        place = (newest, row.tenant, row.content_type)
        lines.setdefault(place, dict(_NOTHING))[row.status] = row.jobs
    for place, seconds in _oldest(connection, unfinished, newest).items():
        lines[place]["oldest_seconds"] = seconds
    heaviest = sorted(lines.items(), key=lambda line: -sum(line[1][what] for what in _COUNTED))[:MOST_LINES]
    steps = [due.since + n * length for n in range((due.until - due.since) // length)]
    marks = [((at, "", ""), _NOTHING) for at in steps]
    rows = []
    for (at, tenant, kind), line in heaviest + marks:
        seen: dict[str, Any] = {} if at == newest else {"pending": None, "processing": None}  # nobody looked then
        rows.append({**line, **step, **seen, "at": at, "tenant": tenant, "content_type": kind})
    connection.execute(KEEP, rows)
    return len(steps)


_COUNTED = ("pending", "processing", "completed", "failed", "timeout", "cancelled")
LINES = (*_COUNTED, "oldest_seconds", "median_seconds", "p95_seconds")  # of `series`, each a value or None a step
_NOTHING = {**dict.fromkeys(_COUNTED, 0), "oldest_seconds": None, "median_seconds": None, "p95_seconds": None}


def _oldest(
    connection: Connection, unfinished: Sequence[Row[Any]], at: datetime
) -> dict[tuple[datetime, str, str], float]:
    found = {}
    tenants = {row.tenant for row in unfinished if row.status == "pending"}
    for tenant in sorted(tenants)[:MOST_LINES]:
        queues = [(tenant, row.content_type) for row in unfinished if row.tenant == tenant and row.status == "pending"]
        for content_type, seconds in gauges.oldest(connection, queues[:MOST_LINES]).items():
            found[at, tenant, content_type] = seconds
    return found


def series(connection: Connection, tenant: str, span: Span, content_type: str | None = None) -> Sequence[Row[Any]]:
    """Return the recorded steps of a tenant (of one content type, if named), oldest first; zeros included."""
    values = {"step": span.step, "seconds": span.seconds, "tenant": tenant, "content_type": content_type}
    return connection.execute(SERIES, values).all()


def last_hour(connection: Connection, tenant: str) -> dict[str, Row[Any]]:
    """Return, by content type, what ended within the last hour and how long it took."""
    return {row.content_type: row for row in connection.execute(LAST_HOUR, {"tenant": tenant})}
