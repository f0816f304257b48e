"""The outbox: outcomes that the pipeline is to hear of, recorded in the transaction of the state change."""

from sqlalchemy import JSON, Column, ForeignKey, Index, Integer, Table, Text, Uuid, text

from models.job import Moment, metadata

# `kwargs` lacks `content`: it is read from job_results when the message is sent (a completed job never changes).
continuations = Table(
    "continuations",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kwargs", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment),  # when it is to be sent (again); null: handed over
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("sent_at", Moment),
    Column("confirmed_at", Moment),
    Column("last_error", Text),
)
Index("continuations_due", continuations.c.next_at, postgresql_where=text("next_at IS NOT NULL"))
