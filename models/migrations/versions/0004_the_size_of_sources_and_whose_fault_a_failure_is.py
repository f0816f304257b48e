"""The size of a job's source file, and whether a failure may be its worker's fault.

Adds two columns that may be null, at once; code of the revision before runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("source_size", sa.BigInteger()))
    op.add_column("job_attempts", sa.Column("retryable", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("job_attempts", "retryable")
    op.drop_column("remote_jobs", "source_size")
