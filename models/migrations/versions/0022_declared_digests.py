"""Digests that producers declare of their sources.

A column that may be null, at once; code of the revision before takes none, and tells none to workers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("source_sha256", sa.LargeBinary()))


def downgrade() -> None:
    op.drop_column("remote_jobs", "source_sha256")
