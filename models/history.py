"""The data of the dashboard's plots: a row for each content type that had work, in each time step."""

from sqlalchemy import BigInteger, Column, Float, Integer, PrimaryKeyConstraint, Table, Text, text

from models.job import Moment, metadata

# A row with an empty tenant and content type says that the step was recorded: without other rows, nothing
# happened in it. Steps and how long they are kept: bridge/insight/history.py.
history = Table(
    "history",
    metadata,
    Column("step", Integer, nullable=False),  # the length of a step in seconds
    Column("at", Moment, nullable=False),  # its beginning
    Column("tenant", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("pending", BigInteger, server_default=text("0")),  # at its end; of joined steps, the most; null: unknown
    Column("processing", BigInteger, server_default=text("0")),
    Column("oldest_seconds", Float),  # for how long the oldest claimable job had waited
    Column("completed", Integer, nullable=False, server_default=text("0")),  # in this step, as the next three
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("timeout", Integer, nullable=False, server_default=text("0")),
    Column("cancelled", Integer, nullable=False, server_default=text("0")),
    Column("median_seconds", Float),  # from claim to result, of what was completed
    Column("p95_seconds", Float),
    PrimaryKeyConstraint("step", "tenant", "at", "content_type"),
)
