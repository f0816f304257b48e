"""Uploads that jobs name.

A new table, and uploads without an end; code of the revision before makes none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

# An upload that the last job named goes as one that nobody ever named.
LET_GO = """
CREATE FUNCTION job_uploads_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE uploads u SET expires_at = now()
  WHERE u.id IN (SELECT upload_id FROM gone) AND NOT EXISTS (SELECT FROM job_uploads n WHERE n.upload_id = u.id);
  RETURN NULL;
END $$;
CREATE TRIGGER job_uploads_gone AFTER DELETE ON job_uploads REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION job_uploads_gone();
"""


def upgrade() -> None:
    op.alter_column("uploads", "expires_at", nullable=True)
    op.create_table(
        "job_uploads",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("upload_id", sa.Uuid(), sa.ForeignKey("uploads.id"), primary_key=True),
    )
    op.create_index("job_uploads_upload", "job_uploads", ["upload_id"])
    op.execute(LET_GO)


def downgrade() -> None:
    op.drop_table("job_uploads")
    op.execute("DROP FUNCTION job_uploads_gone")
    op.execute("UPDATE uploads SET expires_at = now() WHERE expires_at IS NULL")
    op.alter_column("uploads", "expires_at", nullable=False)
