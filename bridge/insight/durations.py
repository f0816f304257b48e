"""How long jobs of a content type take: medians of the recent completed ones, refreshed by a sweep, read by key."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from bridge.runtime import Runtime

RECENT = 50  # completed jobs that a median is taken of
GUESSES = {"audio": 300.0, "video": 900.0}  # seconds, until there is a median
GUESS = 600.0
LONGEST = 604800.0  # seconds; the longest deadline that a job may name

# Only where something was completed since the last time; each by its newest jobs, from the end of an index.
REFRESH = text(f"""
WITH stale AS (
  SELECT k.tenant, k.content_type FROM job_counts k
  LEFT JOIN job_durations d ON d.tenant = k.tenant AND d.content_type = k.content_type
  WHERE k.status = 'completed' AND (d.refreshed_at IS NULL OR EXISTS (
    SELECT FROM remote_jobs j WHERE j.tenant = k.tenant AND j.content_type = k.content_type
      AND j.status = 'completed' AND j.completed_at > d.refreshed_at - interval '1 second'
  ))
)
INSERT INTO job_durations (tenant, content_type, median_seconds, jobs, refreshed_at)
SELECT s.tenant, s.content_type, m.median, m.jobs, now() FROM stale s, LATERAL (
  SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median, count(*) AS jobs FROM (
    SELECT extract(epoch FROM j.completed_at - j.started_at) AS seconds FROM remote_jobs j
    WHERE j.tenant = s.tenant AND j.content_type = s.content_type AND j.status = 'completed'
    ORDER BY j.completed_at DESC LIMIT {RECENT}
  ) recent
) m
WHERE m.jobs > 0
ORDER BY s.tenant, s.content_type
ON CONFLICT (tenant, content_type) DO UPDATE SET
  median_seconds = excluded.median_seconds, jobs = excluded.jobs, refreshed_at = excluded.refreshed_at
""")
MEDIAN = text("SELECT median_seconds FROM job_durations WHERE tenant = :tenant AND content_type = :content_type")
MEDIANS = text("SELECT content_type, median_seconds, jobs FROM job_durations WHERE tenant = :tenant ORDER BY 1")


def refresh(runtime: Runtime) -> int:
    """Bring the medians up to date; return how many were."""
    with runtime.engine.begin() as connection:
        return connection.execute(REFRESH).rowcount


def median_seconds(connection: Connection, tenant: str, content_type: str) -> float | None:
    """Return the median from claim to result, in seconds; None while no job of this type was completed."""
    median: float | None = connection.scalar(MEDIAN, {"tenant": tenant, "content_type": content_type})
    return median


def expected_seconds(connection: Connection, tenant: str, content_type: str) -> float:
    """Return how long a job of this type is expected to run, in seconds: the median, or a guess."""
    median = median_seconds(connection, tenant, content_type)
    return GUESSES.get(content_type, GUESS) if median is None else median


def estimated_completion(runtime: Runtime, job: Row[Any]) -> datetime:
    """Estimate when the running attempt will be done: by its progress, else by how long its type takes."""
    with runtime.engine.connect() as connection:
        if job.progress:
            elapsed = connection.execute(select(func.extract("epoch", func.now() - job.started_at))).scalar_one()
            # Bounded, because the smallest progress would lead out of the calendar; no attempt runs longer.
            seconds = min(float(elapsed) / float(job.progress), LONGEST)
        else:
            seconds = expected_seconds(connection, job.tenant, job.content_type)
    started: datetime = job.started_at
    return started + timedelta(seconds=seconds)


def medians(connection: Connection, tenant: str) -> list[Row[tuple[str, float, int]]]:
    """Return all medians of a tenant: (content_type, median_seconds, jobs)."""
    return list(connection.execute(MEDIANS, {"tenant": tenant}))
