"""Sources that the worker fetches by itself.

A column that may be null, at once; code of the revision before passes such a source on by itself.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("source_fetch", sa.Text()))


def downgrade() -> None:
    op.drop_column("remote_jobs", "source_fetch")
