"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# The table of edges of models/job_state.py as it was at this revision (tests/jobs/test_edges.py walks every pair):
# CHECK constraints cannot see the old row, so that a trigger keeps raw SQL from changes that no edge allows.
LEGAL_MOVES = """
CREATE FUNCTION remote_jobs_legal_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.status, NEW.status) NOT IN (
    ('pending', 'processing'), ('pending', 'completed'), ('pending', 'failed'), ('pending', 'timeout'),
    ('pending', 'cancelled'), ('processing', 'completed'), ('processing', 'pending'), ('processing', 'failed'),
    ('processing', 'timeout'), ('processing', 'cancelled'), ('failed', 'pending'), ('timeout', 'pending'),
    ('cancelled', 'pending')
  ) THEN
    RAISE EXCEPTION 'a job cannot go from % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation',
      CONSTRAINT = 'remote_jobs_legal_move', TABLE = 'remote_jobs';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER remote_jobs_legal_move BEFORE UPDATE OF status ON remote_jobs FOR EACH ROW
  WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION remote_jobs_legal_move();
"""

# What changes a count is appended to job_moves by the same statement. For each row only where the state changed: a
# sign of life costs nothing, and a transition table of whole rows would cost more than the rows' own calls.
COUNTING = """
CREATE FUNCTION remote_jobs_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_moves (tenant, content_type, came, jobs)
  SELECT tenant, content_type, status, count(*) FROM came GROUP BY tenant, content_type, status;
  RETURN NULL;
END $$;
CREATE TRIGGER remote_jobs_came AFTER INSERT ON remote_jobs REFERENCING NEW TABLE AS came
  FOR EACH STATEMENT EXECUTE FUNCTION remote_jobs_came();
CREATE FUNCTION remote_jobs_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_moves (tenant, content_type, gone, came, jobs)
  VALUES (NEW.tenant, NEW.content_type, OLD.status, NEW.status, 1);
  RETURN NULL;
END $$;
CREATE TRIGGER remote_jobs_moved AFTER UPDATE OF status ON remote_jobs FOR EACH ROW
  WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION remote_jobs_moved();
CREATE FUNCTION remote_jobs_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_moves (tenant, content_type, gone, jobs)
  SELECT tenant, content_type, status, count(*) FROM gone GROUP BY tenant, content_type, status;
  RETURN NULL;
END $$;
CREATE TRIGGER remote_jobs_gone AFTER DELETE ON remote_jobs REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION remote_jobs_gone();
"""

OUTCOME_STATE = """CASE WHEN next_at IS NOT NULL AND tries >= 5 THEN 'failing' WHEN next_at IS NOT NULL THEN 'waiting'
 WHEN confirmed_at IS NOT NULL THEN 'confirmed' ELSE 'sent' END"""

# name: (columns, predicate)
INDEXES_OF_JOBS = {
    "remote_jobs_claim": (["tenant", "content_type", "priority", "queued_at", "id"], "status = 'pending'"),
    "remote_jobs_deadline": (["timeout_at"], "status = 'processing'"),
    "remote_jobs_due": (["available_at"], "status = 'pending' AND NOT mirrored"),
    "remote_jobs_holder": (["key_id", "worker_id"], "status = 'processing'"),
    "remote_jobs_ingestion_task": (["tenant", "ingestion_task_id", "created_at", "id"], None),
    "remote_jobs_by_status": (["tenant", "status", "created_at", "id"], None),
    "remote_jobs_by_type": (["tenant", "content_type", "status", "created_at", "id"], None),
    "remote_jobs_by_worker": (["tenant", "worker_id", "created_at", "id"], "worker_id IS NOT NULL"),
    "remote_jobs_lease": (["lease_expires_at"], "status = 'processing'"),
    "remote_jobs_newest": (["tenant", "created_at", "id"], None),
    "remote_jobs_purge": (["completed_at"], "completed_at IS NOT NULL"),
    "remote_jobs_queue_clock": (["timeout_at"], "status = 'pending'"),
    "remote_jobs_recent": (["tenant", "content_type", "completed_at"], "status = 'completed'"),
}


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("content_types", postgresql.ARRAY(sa.Text())),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("scopes <@ ARRAY['submit', 'work', 'read', 'admin'] AND scopes <> '{}'", name="scopes"),
        sa.UniqueConstraint("prefix"),
    )
    op.create_table(
        "remote_jobs",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("ingestion_task_id", sa.Text(), nullable=False),
        sa.Column("source_file_path", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("task_options", sa.JSON(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("idempotency_hash", sa.LargeBinary()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mirrored", sa.Boolean(), nullable=False),
        sa.Column("timeout_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("queue_timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("retry_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("return_count", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("outcome_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("forgiven_attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_id", sa.Text()),
        sa.Column("key_id", sa.Uuid()),
        sa.Column("claim_id", sa.Text()),
        sa.Column("lease_token", sa.Text()),
        sa.Column("lease_seconds", sa.Integer()),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ack_by", sa.DateTime(timezone=True)),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("attempt_end", sa.Text()),
        sa.Column("attempt_ended_at", sa.DateTime(timezone=True)),
        sa.Column("progress", sa.Float()),
        sa.Column("message", sa.Text()),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("error_message", sa.Text()),
        sa.Column("result_data", sa.JSON()),
        sa.CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)"
            " AND (status = 'processing') = (ack_by IS NOT NULL)",
            name="lease_iff_processing",
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'failed', 'timeout')) = (completed_at IS NOT NULL)",
            name="completed_at_iff_final",
        ),
        sa.CheckConstraint(
            "NOT (status = 'processing') OR (attempt > 0 AND worker_id IS NOT NULL AND key_id IS NOT NULL"
            " AND lease_token IS NOT NULL AND started_at IS NOT NULL AND attempt_end IS NULL)",
            name="processing_is_held",
        ),
        sa.CheckConstraint(
            "NOT (status IN ('cancelled', 'completed', 'failed', 'timeout')) OR outcome_count > 0",
            name="final_is_counted",
        ),
        sa.CheckConstraint("status <> 'completed' OR result_data IS NOT NULL", name="completed_has_result"),
        sa.CheckConstraint(
            "status IN ('cancelled', 'completed', 'failed', 'pending', 'processing', 'timeout')",
            name="status",
        ),
        sa.CheckConstraint("(attempt_end IS NULL) = (attempt_ended_at IS NULL)", name="attempt_end"),
        sa.CheckConstraint("(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name="idempotency"),
        sa.CheckConstraint("priority BETWEEN 0 AND 2", name="priority"),
        sa.CheckConstraint("retry_count BETWEEN 0 AND max_retries", name="retry_count"),
        postgresql_with={"fillfactor": "85"},
    )
    for name, (columns, predicate) in INDEXES_OF_JOBS.items():
        where = None if predicate is None else sa.text(predicate)
        op.create_index(name, "remote_jobs", columns, postgresql_where=where)
    keyed = sa.text("idempotency_key IS NOT NULL")
    columns = ["tenant", "idempotency_key"]
    op.create_index("remote_jobs_idempotency", "remote_jobs", columns, unique=True, postgresql_where=keyed)
    op.create_table(
        "sweeps",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("ran_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "continuations",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("n", sa.Integer(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kwargs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("confirmed_at", sa.DateTime(timezone=True)),
        sa.Column("last_error", sa.Text()),
        sa.Column("state", sa.Text(), sa.Computed(OUTCOME_STATE, persisted=True), nullable=False),
    )
    op.create_index("continuations_due", "continuations", ["next_at"], postgresql_where=sa.text("next_at IS NOT NULL"))
    op.create_index("continuations_state", "continuations", ["tenant", "state", "created_at", "job_id", "n"])
    op.create_table(
        "job_batches",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("idempotency_key", sa.Text(), primary_key=True),
        sa.Column("idempotency_hash", sa.LargeBinary(), nullable=False),
        sa.Column("job_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("job_batches_age", "job_batches", ["created_at"])
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("lease_token", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("result_digest", sa.LargeBinary()),
        sa.CheckConstraint(
            "how IN ('cancelled', 'completed', 'failed', 'lease_expired', 'released', 'timeout', 'unacknowledged')",
            name="how",
        ),
    )
    op.create_table(
        "job_refusals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_index("job_refusals_job", "job_refusals", ["job_id", "id"])
    op.create_table(
        "job_requests",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("what IN ('cancel', 'retry')", name="what"),
    )
    op.create_index("job_requests_job", "job_requests", ["job_id", "id"])
    op.create_table(
        "job_results",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("content", sa.Text()),
    )
    op.create_index("job_attempts_worker", "job_attempts", ["key_id", "worker_id", "ended_at"])
    bad = sa.text("how IN ('failed', 'lease_expired', 'unacknowledged')")
    op.create_index("job_attempts_bad", "job_attempts", ["ended_at"], postgresql_where=bad)
    op.create_table(
        "job_counts",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("content_type", sa.Text(), primary_key=True),
        sa.Column("status", sa.Text(), primary_key=True),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "job_moves",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("gone", sa.Text()),
        sa.Column("came", sa.Text()),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "job_durations",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("content_type", sa.Text(), primary_key=True),
        sa.Column("median_seconds", sa.Float(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "worker_pauses",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid()),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("in_a_row", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("by IN ('bridge', 'operator')", name="by"),
        sa.CheckConstraint("by <> 'bridge' OR (until IS NOT NULL AND key_id IS NOT NULL)", name="bridge"),
        sa.UniqueConstraint(
            "tenant", "worker_id", "key_id", "by", name="worker_pauses_worker", postgresql_nulls_not_distinct=True
        ),
    )
    # Not compressed: then its size is known without reading it, which bounds what a claim takes (bridge/jobs/claim.py).
    op.execute("ALTER TABLE remote_jobs ALTER COLUMN task_options SET STORAGE EXTERNAL")
    op.execute(LEGAL_MOVES)
    op.execute(COUNTING)


def downgrade() -> None:
    for table in (
        "worker_pauses", "job_durations", "job_moves", "job_counts", "job_results", "job_requests", "job_refusals",
        "job_attempts", "job_batches", "continuations", "sweeps", "remote_jobs", "api_keys",
    ):  # fmt: skip
        op.drop_table(table)
    for function in ("legal_move", "came", "moved", "gone"):
        op.execute(f"DROP FUNCTION remote_jobs_{function}()")
