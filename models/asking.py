"""When workers last asked for a content type of which jobs wait that are to be told unserved."""

from sqlalchemy import Column, Table, Text

from models.job import Moment, metadata

# One row for each queue that had such a job, written by the API processes; forgotten when it has none any more.
queue_asks = Table(
    "queue_asks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("content_type", Text, primary_key=True),
    Column("asked_at", Moment, nullable=False),
)
