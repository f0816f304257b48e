"""Checkpoints that were uploaded: which upload a job's next attempt is given.

A column that may be null, at once, and a trigger that does nothing for a job without one; code of the revision before
gives no attempt such a checkpoint, and one that it stores comes before it (api/http/views.py).
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

# No further attempt of a completed job can be: its checkpoint goes as one that was replaced.
DONE = """
CREATE FUNCTION remote_jobs_checkpoint_done() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM job_uploads WHERE job_id = NEW.id AND upload_id = NEW.checkpoint_upload;
  NEW.checkpoint_upload := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER remote_jobs_checkpoint_done BEFORE UPDATE OF status ON remote_jobs FOR EACH ROW
  WHEN (NEW.status = 'completed' AND NEW.checkpoint_upload IS NOT NULL) EXECUTE FUNCTION remote_jobs_checkpoint_done();
"""


def upgrade() -> None:
    op.add_column("remote_jobs", sa.Column("checkpoint_upload", sa.Uuid()))
    op.execute(DONE)


def downgrade() -> None:
    op.execute("DROP TRIGGER remote_jobs_checkpoint_done ON remote_jobs")
    op.execute("DROP FUNCTION remote_jobs_checkpoint_done")
    op.execute("DELETE FROM job_uploads n USING remote_jobs j WHERE n.upload_id = j.checkpoint_upload")
    op.drop_column("remote_jobs", "checkpoint_upload")
