"""What a job's priority was before its age raised it.

Adds a column that may be null, at once; code of the revision before runs on, and shows the raised priority.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("asked_priority", sa.SmallInteger()))


def downgrade() -> None:
    op.drop_column("remote_jobs", "asked_priority")
