"""How long jobs take: the median of each content type's recent completed jobs, for estimates."""

from sqlalchemy import Column, Float, Integer, Table, Text

from models.job import Moment, metadata

job_durations = Table(
    "job_durations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("content_type", Text, primary_key=True),
    Column("median_seconds", Float, nullable=False),  # from claim to result
    Column("jobs", Integer, nullable=False),  # how many it is the median of
    Column("refreshed_at", Moment, nullable=False),
)
