"""Outcomes told over HTTP: where, signed by whose secret, and how far each is.

Columns that may be null and an empty table, at once; code of the revision before does not know them, and makes jobs
that call nobody.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

RECEIVER = "lower(split_part(split_part(split_part(url, '://', 2), '/', 1), '?', 1))"
STATE = """CASE WHEN next_at IS NOT NULL AND tries >= 5 THEN 'failing' WHEN next_at IS NOT NULL THEN 'waiting'
 WHEN delivered_at IS NOT NULL THEN 'delivered' ELSE 'failed' END"""


def upgrade() -> None:
    for table in ("remote_jobs", "batches"):
        op.add_column(table, sa.Column("callback_url", sa.Text()))
        op.add_column(table, sa.Column("callback_key", sa.Uuid()))
    op.add_column("api_keys", sa.Column("callback_url", sa.Text()))
    op.add_column("api_keys", sa.Column("webhook_secret", sa.LargeBinary()))
    op.add_column("api_keys", sa.Column("webhook_secret_before", sa.LargeBinary()))
    op.add_column("api_keys", sa.Column("webhook_secret_at", sa.DateTime(timezone=True)))
    op.create_table(
        "webhooks",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("n", sa.Integer(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("receiver", sa.Text(), sa.Computed(RECEIVER, persisted=True), nullable=False),
        sa.Column("kwargs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text()),
        sa.Column("response_status", sa.Integer()),
        sa.Column("response_excerpt", sa.Text()),
        sa.Column("state", sa.Text(), sa.Computed(STATE, persisted=True), nullable=False),
    )
    on_its_way = sa.text("next_at IS NOT NULL")
    op.create_index("webhooks_of_tenant", "webhooks", ["tenant", "next_at"], postgresql_where=on_its_way)
    op.create_index("webhooks_of_receiver", "webhooks", ["tenant", "receiver", "next_at"], postgresql_where=on_its_way)
    op.create_index("webhooks_state", "webhooks", ["tenant", "state", "created_at", "job_id", "n"])


def downgrade() -> None:
    op.drop_table("webhooks")
    for column in ("webhook_secret_at", "webhook_secret_before", "webhook_secret", "callback_url"):
        op.drop_column("api_keys", column)
    for table in ("batches", "remote_jobs"):
        op.drop_column(table, "callback_key")
        op.drop_column(table, "callback_url")
