"""Whether an upload is UTF-8, seen as it comes.

A column that may be null, at once: of what came before, and comes to code of the revision before, it is not known, and
such a text is read as its result is accepted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("utf8", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("uploads", "utf8")
