"""When workers last polled for a content type with pending jobs that are to be reported as unserved."""

from sqlalchemy import Column, Table, Text

from models.job import Moment, metadata

# One row per queue with such a job, written by the API processes; deleted when it has none any more.
queue_asks = Table(
    "queue_asks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("content_type", Text, primary_key=True),
    Column("asked_at", Moment, nullable=False),
)
