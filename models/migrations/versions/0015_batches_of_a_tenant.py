"""Batches in the order of the dashboard's list: one index, of a table with a row for each batch."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_index("batches_newest", "batches", ["tenant", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("batches_newest", "batches")
