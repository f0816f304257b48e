"""A pause may ask its worker to end.

Adds a column with a default, at once; code of the revision before runs on, and takes a drain for a pause.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("worker_pauses", sa.Column("drain", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def downgrade() -> None:
    op.drop_column("worker_pauses", "drain")
