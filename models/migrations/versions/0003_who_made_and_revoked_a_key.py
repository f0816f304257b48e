"""Who made a key and who revoked it.

Two columns without a default, so that no row is written; keys from before have none. Code of the revision before
runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("made_by", sa.Text()))
    op.add_column("api_keys", sa.Column("revoked_by", sa.Text()))
    op.create_index("api_keys_made_by", "api_keys", ["made_by"])
    op.create_index("api_keys_tenant", "api_keys", ["tenant", "created_at", "prefix"])


def downgrade() -> None:
    op.drop_index("api_keys_tenant", table_name="api_keys")
    op.drop_index("api_keys_made_by", table_name="api_keys")
    op.drop_column("api_keys", "revoked_by")
    op.drop_column("api_keys", "made_by")
