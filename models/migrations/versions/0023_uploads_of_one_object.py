"""Uploads whose objects are joined into one, and those of attempts that have ended.

A column with a default, two indexes, and objects of more than 2 GiB: a wider integer, which code of the revision before
reads and writes as it did. That rewrites upload_segments: 9 s for a million objects on two busy cores, in which uploads
and their downloads are 503, and repeated. The downgrade leaves it wide: a joined object may need it, and the code
before reads it as it is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.alter_column("upload_segments", "size", type_=sa.BigInteger())
    now, later = sa.text("now()"), sa.text("(expires_at IS NOT NULL)")
    op.add_column("uploads", sa.Column("join_at", sa.DateTime(timezone=True), server_default=now, nullable=False))
    in_pieces = sa.text("segments > 1 AND sha256 IS NOT NULL")
    op.create_index("uploads_to_join", "uploads", [later, "join_at"], postgresql_where=in_pieces)
    unnamed = sa.text("job_id IS NOT NULL AND expires_at IS NOT NULL")
    op.create_index("uploads_of_attempts", "uploads", ["job_id", "id"], postgresql_where=unnamed)


def downgrade() -> None:
    op.drop_index("uploads_of_attempts", "uploads")
    op.drop_index("uploads_to_join", "uploads")
    op.drop_column("uploads", "join_at")
