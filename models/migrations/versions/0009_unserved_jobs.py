"""Jobs that nobody asks for: how long until their pipeline is told, and when workers last asked.

Two columns that may be null, two indexes that hold only jobs which use them (for which the table is read twice: a
second or two for a million jobs), one new table; code of the revision before runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

WAITS = sa.text("unserved_at IS NOT NULL AND completed_at IS NULL")


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("unserved_after_seconds", sa.Integer()))
    op.add_column("remote_jobs", sa.Column("unserved_at", sa.DateTime(timezone=True)))
    op.create_table(
        "queue_asks",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("content_type", sa.Text(), primary_key=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("remote_jobs_unserved", "remote_jobs", ["unserved_at"], postgresql_where=WAITS)
    op.create_index("remote_jobs_unserved_queue", "remote_jobs", ["tenant", "content_type"], postgresql_where=WAITS)


def downgrade() -> None:
    op.drop_index("remote_jobs_unserved_queue", "remote_jobs")
    op.drop_index("remote_jobs_unserved", "remote_jobs")
    op.drop_table("queue_asks")
    op.drop_column("remote_jobs", "unserved_at")
    op.drop_column("remote_jobs", "unserved_after_seconds")
