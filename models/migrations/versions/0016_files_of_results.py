"""The files of a job's result: artifacts, and a text that was uploaded.

A new table; code of the revision before makes no rows in it, and deletes them with their job.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "job_files",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text(collation="C"), primary_key=True),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("job_files")
