"""Where a job stands in its trace: the W3C traceparent of its create.

A column that may be null, at once; code of the revision before does not know it and runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("traceparent", sa.Text()))


def downgrade() -> None:
    op.drop_column("remote_jobs", "traceparent")
