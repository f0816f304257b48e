"""A job's log, in pieces, and its one checkpoint.

Two new tables and a column that may be null, at once; code of the revision before does not know them and runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "job_log_pieces",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("n", sa.BigInteger(), primary_key=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
    )
    op.create_table(
        "job_checkpoints",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=False),
    )
    op.add_column("remote_jobs", sa.Column("checkpoint_bytes", sa.Integer()))


def downgrade() -> None:
    op.drop_column("remote_jobs", "checkpoint_bytes")
    op.drop_table("job_checkpoints")
    op.drop_table("job_log_pieces")
