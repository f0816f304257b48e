"""Batches as things of their own: an ID, and one outcome when all of their jobs have ended.

Columns that may be null, one new table, and an index that holds only jobs of batches (for which the table is read once:
a second or so for a million jobs); code of the revision before runs on, and makes batches without an ID.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("look_at", sa.DateTime(timezone=True)),
    )
    op.create_index("batches_open", "batches", ["look_at"], postgresql_where=sa.text("look_at IS NOT NULL"))
    op.create_index("batches_age", "batches", ["created_at"])
    op.add_column("job_batches", sa.Column("batch_id", sa.Uuid()))
    op.add_column("remote_jobs", sa.Column("batch_id", sa.Uuid()))
    op.add_column("remote_jobs", sa.Column("batch_outcome", sa.Boolean()))
    op.create_index(
        "remote_jobs_batch",
        "remote_jobs",
        ["batch_id", "completed_at"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("remote_jobs_batch", "remote_jobs")
    op.drop_column("remote_jobs", "batch_outcome")
    op.drop_column("remote_jobs", "batch_id")
    op.drop_column("job_batches", "batch_id")
    op.drop_table("batches")
