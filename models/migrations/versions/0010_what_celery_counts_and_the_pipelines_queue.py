"""What Celery's processes count, and the pipeline's queue as it was last seen.

Two new tables; code of the revision before does not know them and runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "metric_totals",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("labels", sa.Text(), primary_key=True),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.create_table(
        "pipeline_queues",
        sa.Column("queue", sa.Text(), primary_key=True),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("oldest", sa.LargeBinary()),
        sa.Column("untouched_since", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("pipeline_queues")
    op.drop_table("metric_totals")
