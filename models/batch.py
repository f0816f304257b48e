"""Batches, and their answers under an Idempotency-Key; kept as long as one of their jobs."""

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, Table, Text, Uuid, text
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
    Column("batch_id", Uuid),  # null: created by a version whose batches had no ID
)
Index("job_batches_age", job_batches.c.created_at)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("jobs", Integer, nullable=False),  # when it was created
    Column("outcome", Boolean, nullable=False),  # whether an outcome was asked for when all of them have ended
    Column("created_at", Moment, nullable=False),
    Column("callback_url", Text),  # called when all of them have ended, like a job's
    Column("callback_key", Uuid),
    Column("look_at", Moment),  # when the sweep next checks for their end; null: recorded, or not asked for
)
Index("batches_open", batches.c.look_at, postgresql_where=text("look_at IS NOT NULL"))
Index("batches_age", batches.c.created_at)
Index("batches_newest", batches.c.tenant, batches.c.created_at, batches.c.id)  # the list for people
