"""Counts of processes that cannot be scraped (bridge/insight/totals.py)."""

from sqlalchemy import Column, Float, Table, Text

from models.job import metadata

metric_totals = Table(
    "metric_totals",
    metadata,
    Column("name", Text, primary_key=True),
    Column("labels", Text, primary_key=True),  # JSON, by name
    Column("value", Float, nullable=False),
)
