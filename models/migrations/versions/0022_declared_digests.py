"""Digests that producers declare of their sources, and keys whose jobs' workers fetch from addresses.

Two columns that may be null, at once; code of the revision before declares nothing, and has the bridge fetch.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("source_sha256", sa.LargeBinary()))
    op.add_column("api_keys", sa.Column("source_fetch", sa.Text()))


def downgrade() -> None:
    op.drop_column("api_keys", "source_fetch")
    op.drop_column("remote_jobs", "source_sha256")
