"""Batches that were submitted under an Idempotency-Key: their answer, for as long as one of their jobs is there."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

from models.job import Moment, metadata

# No foreign key: a replay gives the same list also when some of the jobs have been purged.
job_batches = Table(
    "job_batches",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("idempotency_hash", LargeBinary, nullable=False),
    Column("job_ids", ARRAY(Uuid), nullable=False),  # in the order in which the jobs were sent
    Column("created_at", Moment, nullable=False),
)
Index("job_batches_age", job_batches.c.created_at)
