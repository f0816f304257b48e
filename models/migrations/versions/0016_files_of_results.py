"""The files of a job's result: artifacts, and a text that was uploaded.

A new table; code of the revision before makes no rows in it, and deletes them with their job.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_files",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", name="job_files_pkey"),
        sa.ForeignKeyConstraint(["job_id"], ["remote_jobs.id"], name="job_files_job_id_fkey", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("job_files")
