"""The history that the dashboard draws, and secrets that all processes share.

Two new tables; code of the revision before does not know them and runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "kept_secrets",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.create_table(
        "history",
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("pending", sa.BigInteger(), server_default=sa.text("0")),
        sa.Column("processing", sa.BigInteger(), server_default=sa.text("0")),
        sa.Column("oldest_seconds", sa.Float()),
        sa.Column("completed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("timeout", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cancelled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("median_seconds", sa.Float()),
        sa.Column("p95_seconds", sa.Float()),
        sa.PrimaryKeyConstraint("step", "tenant", "at", "content_type", name="history_pkey"),
    )


def downgrade() -> None:
    op.drop_table("history")
    op.drop_table("kept_secrets")
