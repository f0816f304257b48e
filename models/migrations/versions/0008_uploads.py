"""Uploaded files.

Three new tables; code of the revision before does not know them and runs on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid()),
        sa.Column("attempt", sa.Integer()),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("segments", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("media_type", sa.Text()),
        sa.Column("metadata", sa.Text()),
        sa.Column("sha256", sa.LargeBinary()),
        sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.CheckConstraint("received BETWEEN 0 AND length", name="received"),
        sa.CheckConstraint("(received = length) = (sha256 IS NOT NULL)", name="whole_has_digest"),
        sa.CheckConstraint("(job_id IS NULL) = (attempt IS NULL)", name="attempt_of_job"),
    )
    op.create_index("uploads_expire", "uploads", ["expires_at"])
    op.create_table(
        "upload_segments",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), sa.ForeignKey("uploads.id", ondelete="SET NULL")),
        sa.Column("start", sa.BigInteger()),
        sa.Column("size", sa.Integer()),
        sa.Column("written_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(start IS NULL) = (size IS NULL)", name="counted"),
    )
    op.create_index("upload_segments_of", "upload_segments", ["upload_id", "start"])
    unnamed, uncounted = sa.text("upload_id IS NULL"), sa.text("size IS NULL AND upload_id IS NOT NULL")
    op.create_index("upload_segments_unnamed", "upload_segments", ["written_at"], postgresql_where=unnamed)
    op.create_index("upload_segments_uncounted", "upload_segments", ["written_at"], postgresql_where=uncounted)
    op.create_table(
        "upload_usage",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("key_id", sa.Uuid(), primary_key=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("upload_usage")
    op.drop_table("upload_segments")
    op.drop_table("uploads")
