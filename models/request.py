"""What operators and producers requested of a job: its cancels and retries, with the requesting key."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Identity, Index, Table, Text, Uuid

from models.job import Moment, metadata, one_of
from models.job_state import Asked

# Append-only: a row is written by the very statement that changes the job (bridge/jobs/transition.py).
job_requests = Table(
    "job_requests",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("what", Text, nullable=False),
    Column("key_id", Uuid, nullable=False),
    CheckConstraint(one_of("what", Asked), name="what"),
)
Index("job_requests_job", job_requests.c.job_id, job_requests.c.id)
