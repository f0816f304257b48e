"""The number of jobs by tenant, content type and state, kept by the database itself in each transaction.

A counter that every transaction updates would be a row that all wait for. So the triggers on `remote_jobs` (see the
first migration) only append what changed to `job_moves`; a sweep folds that into `job_counts`, and a reader sums both
(bridge/insight/counters.py).
"""

from sqlalchemy import BigInteger, Column, Table, Text

from models.job import metadata

job_counts = Table(
    "job_counts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("content_type", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)

# No key and no index: it is appended to, read whole and emptied every few seconds.
job_moves = Table(
    "job_moves",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("gone", Text),  # the state that these jobs left; null: they are new
    Column("came", Text),  # the state that they came to; null: they were deleted
    Column("jobs", BigInteger, nullable=False),
)
