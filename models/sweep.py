"""When each sweep last ran and what it found to repair: the gaps shown in /metrics."""

from sqlalchemy import BigInteger, Column, Float, Integer, Table, Text

from models.job import Moment, metadata

sweeps = Table(
    "sweeps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ran_at", Moment, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("changed", Integer, nullable=False),  # rows or IDs that the last run moved
    Column("total", BigInteger, nullable=False),  # rows or IDs that all runs moved
)
