"""What holds of any job at rest, whatever happened to it, and of the counters at any moment: PostgreSQL is asked.

The invariants are those of the history checker (notes, reliability C1–C8). A job that another transaction is just
changing is looked at as it was before or as it is after, never in between: each question is one statement.
"""

from typing import Any, Protocol

from sqlalchemy import Row

from bridge.insight import counters
from models.job import one_of
from models.job_state import FINAL

# Each condition is what must not be of a job `j`.
BROKEN = {
    "attempts have no gap, and only the last is open": """ARRAY(SELECT attempt FROM a ORDER BY attempt)
      <> ARRAY(SELECT generate_series(1, j.attempt - CAST(j.status = 'processing' AS int)))""",
    "no lease is held twice": """EXISTS (SELECT FROM
      (SELECT claimed_at, lag(ended_at) OVER (ORDER BY attempt) AS before FROM a) t WHERE claimed_at < before)""",
    "every claim has a token of its own": "(SELECT count(*) > count(DISTINCT lease_token) FROM a)",
    "one result is accepted of a completed job, and none of another": """(SELECT count(*) FROM a
      WHERE how = 'completed') <> CAST(j.status = 'completed' AS int)""",
    "the accepted result is kept": """(SELECT count(*) FROM job_results r WHERE r.job_id = j.id)
      <> CAST(j.status = 'completed' AS int)""",
    # Number 0 is that of its batch.
    "there is one outcome a terminal state": """ARRAY(SELECT n FROM continuations c WHERE c.job_id = j.id AND n > 0
      ORDER BY n) <> ARRAY(SELECT generate_series(1, j.outcome_count))""",
    "the last outcome tells the state": f"""j.{one_of("status", FINAL)} AND j.status IS DISTINCT FROM
      (SELECT kwargs ->> 'status' FROM continuations c WHERE c.job_id = j.id ORDER BY n DESC LIMIT 1)""",
    "it keeps the uploads that it names, and no others": """ARRAY(SELECT n.upload_id FROM job_uploads n
      JOIN uploads u ON u.id = n.upload_id AND u.expires_at IS NULL WHERE n.job_id = j.id ORDER BY 1) <> ARRAY(
      SELECT f.upload_id FROM job_files f WHERE f.job_id = j.id
      UNION SELECT j.checkpoint_upload WHERE j.checkpoint_upload IS NOT NULL
      UNION SELECT CAST(substr(j.source_file_path, 8) AS uuid) WHERE starts_with(j.source_file_path, 'upload:')
      ORDER BY 1)""",
    "retries are bounded": "NOT j.retry_count BETWEEN 0 AND j.max_retries",
}
ATTEMPTS = "WITH a AS (SELECT * FROM job_attempts WHERE job_id = j.id)"
CHECKS = " UNION ALL ".join(f"SELECT '{name}' WHERE {condition}" for name, condition in BROKEN.items())
UNSOUND = f"SELECT j.id, b.what FROM remote_jobs j, LATERAL ({ATTEMPTS} {CHECKS}) AS b(what)"

DIFFERENT = f"""
SELECT * FROM (SELECT tenant, content_type, status, count(*) AS jobs FROM remote_jobs GROUP BY 1, 2, 3) counted
FULL JOIN (SELECT tenant, content_type, status, sum(jobs) AS jobs FROM ({counters.KEPT}) k GROUP BY 1, 2, 3
           HAVING sum(jobs) <> 0) kept
USING (tenant, content_type, status) WHERE counted.jobs IS DISTINCT FROM kept.jobs
"""


class Asked(Protocol):
    """What asks PostgreSQL: a Core, or a whole bridge."""

    def sql(self, statement: str, **parameters: Any) -> list[Row[Any]]: ...


def sound(core: Asked, job_id: Any) -> None:
    """All of it holds of this job."""
    assert core.sql(f"{UNSOUND} WHERE j.id = :id", id=str(job_id)) == []


def all_sound(core: Asked, tenant: str | None = None) -> None:
    """All of it holds of every job (of a tenant), and the counters equal a full count."""
    where = "" if tenant is None else "WHERE j.tenant = :tenant"
    counted = f"SELECT NULL, 'counter of ' || tenant || ' ' || content_type || ' ' || status FROM ({DIFFERENT}) d"
    assert core.sql(f"{UNSOUND} {where} UNION ALL {counted}", **({} if tenant is None else {"tenant": tenant})) == []
