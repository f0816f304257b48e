"""Uploads that jobs name count for their tenant, no longer for the key that made them.

Two columns with defaults and an index. Code of the revision before counts on as it did; whoever announces moves what it
named (bridge/blobs/uploads.py). Should it remove an upload that was moved, the key has less on its account than it has.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("kept", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("upload_usage", sa.Column("kept", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    named = sa.text("expires_at IS NULL AND NOT kept")
    op.create_index("uploads_named", "uploads", ["tenant"], postgresql_where=named)


def downgrade() -> None:
    # What jobs name counts for its key again, as at least 1 MiB.
    op.execute("""
        UPDATE upload_usage u SET bytes = u.bytes + k.bytes
        FROM (SELECT tenant, key_id, sum(greatest(length, 1048576)) AS bytes FROM uploads WHERE kept GROUP BY 1, 2) k
        WHERE u.tenant = k.tenant AND u.key_id = k.key_id
    """)
    op.drop_index("uploads_named", "uploads")
    op.drop_column("upload_usage", "kept")
    op.drop_column("uploads", "kept")
