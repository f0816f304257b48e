"""What the machine (tests/support/machine.py) compares of a job: as PostgreSQL has it, and as the model says."""

from typing import Any

from tests.support.model import Job
from tests.support.model_around import FINAL

# All that is compared, in one round trip.
SEEN = """
SELECT id, status, attempt, worker_id, retry_count, return_count, outcome_count, attempt_end, progress, mirrored,
  CAST(extract(epoch FROM timeout_at - now()) AS float) AS timeout,
  CAST(extract(epoch FROM lease_expires_at - now()) AS float) AS lease,
  ARRAY(SELECT how FROM job_attempts a WHERE a.job_id = j.id ORDER BY attempt) AS hows,
  ARRAY(SELECT state || ' ' || tries FROM continuations c WHERE c.job_id = j.id ORDER BY n) AS outcomes,
  ARRAY(SELECT CAST(extract(epoch FROM next_at - now()) AS float)
        FROM continuations c WHERE c.job_id = j.id ORDER BY n) AS due
FROM remote_jobs j WHERE tenant = :tenant
"""


def same(row: Any, job: Job, now: float) -> None:
    assert (row.status, row.attempt, row.worker_id) == (job.status, job.attempt, job.worker and job.worker[1])
    assert (row.retry_count, row.return_count, row.outcome_count) == (job.retries, job.returns, len(job.outcomes))
    assert (row.attempt_end, row.progress, row.mirrored) == (job.end, job.progress, job.mirrored)
    assert row.hows == [how for _, how in job.ends]
    assert row.outcomes == [f"{outcome.state} {outcome.tries}" for outcome in job.outcomes]
    for seconds, outcome in zip(row.due, job.outcomes, strict=True):
        assert seconds is None or abs(seconds - (outcome.due - now)) < 50
    assert (row.lease is None) == (job.lease is None)
    if job.status not in FINAL:
        assert abs(row.timeout - (job.timeout - now)) < 50
        assert row.lease is None or abs(row.lease - (job.lease - now)) < 50
