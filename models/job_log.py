"""What workers store with a job while they process it: its log, and one checkpoint."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Table, Text, Uuid

from models.job import Moment, metadata

# The lines of one request are one piece. The oldest are deleted when the log grows too large (bridge/jobs/job_log.py).
job_log_pieces = Table(
    "job_log_pieces",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", BigInteger, primary_key=True),  # from 1, in order of arrival
    Column("attempt", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("lines", Text, nullable=False),  # ended by a line feed each
    Column("bytes", Integer, nullable=False),
)

job_checkpoints = Table(
    "job_checkpoints",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("checkpoint", Text, nullable=False),
)
