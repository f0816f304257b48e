"""The pipeline's queue as the bridge last saw it (bridge/outbox/pipeline_queue.py)."""

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from models.job import Moment, metadata

pipeline_queues = Table(
    "pipeline_queues",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("looked_at", Moment, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("oldest", LargeBinary),  # the digest of the next message; null: there is none
    Column("untouched_since", Moment, nullable=False),  # since when the same message has been next, or there was none
)
