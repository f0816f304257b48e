"""Refused results, stored with the attempt they were meant for."""

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Index, Integer, Table, Text, Uuid

from models.job import Moment, metadata

job_refusals = Table(
    "job_refusals",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),  # the latest attempt when it was refused
    Column("key_id", Uuid, nullable=False),
    Column("refused_at", Moment, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
Index("job_refusals_job", job_refusals.c.job_id, job_refusals.c.id)
