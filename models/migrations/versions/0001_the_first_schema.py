"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The table of edges of models/job_state.py as it was at this revision (tests/test_states.py walks every pair): CHECK
# constraints cannot see the old row, so that a trigger keeps raw SQL from changes that no edge allows.
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


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("content_types", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "scopes <@ ARRAY['submit', 'work', 'read', 'admin'] AND scopes <> '{}'", name=op.f("api_keys_scopes")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("prefix"),
    )
    op.create_table(
        "remote_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("ingestion_task_id", sa.Text(), nullable=False),
        sa.Column("source_file_path", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("task_options", sa.JSON(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("idempotency_hash", sa.LargeBinary(), nullable=True),
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
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("claim_id", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_seconds", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ack_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt_end", sa.Text(), nullable=True),
        sa.Column("attempt_ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", sa.Float(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("result_data", sa.JSON(), nullable=True),
        sa.CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)"
            " AND (status = 'processing') = (ack_by IS NOT NULL)",
            name=op.f("remote_jobs_lease_iff_processing"),
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'failed', 'timeout')) = (completed_at IS NOT NULL)",
            name=op.f("remote_jobs_completed_at_iff_final"),
        ),
        sa.CheckConstraint(
            "NOT (status = 'processing') OR (attempt > 0 AND worker_id IS NOT NULL AND key_id IS NOT NULL"
            " AND lease_token IS NOT NULL AND started_at IS NOT NULL AND attempt_end IS NULL)",
            name=op.f("remote_jobs_processing_is_held"),
        ),
        sa.CheckConstraint(
            "NOT (status IN ('cancelled', 'completed', 'failed', 'timeout')) OR outcome_count > 0",
            name=op.f("remote_jobs_final_is_counted"),
        ),
        sa.CheckConstraint(
            "status <> 'completed' OR result_data IS NOT NULL", name=op.f("remote_jobs_completed_has_result")
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'completed', 'failed', 'pending', 'processing', 'timeout')",
            name=op.f("remote_jobs_status"),
        ),
        sa.CheckConstraint("(attempt_end IS NULL) = (attempt_ended_at IS NULL)", name=op.f("remote_jobs_attempt_end")),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name=op.f("remote_jobs_idempotency")
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 2", name=op.f("remote_jobs_priority")),
        sa.CheckConstraint("retry_count BETWEEN 0 AND max_retries", name=op.f("remote_jobs_retry_count")),
        sa.PrimaryKeyConstraint("id", name=op.f("remote_jobs_pkey")),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index(
        "remote_jobs_claim",
        "remote_jobs",
        ["tenant", "content_type", "priority", "queued_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "remote_jobs_deadline",
        "remote_jobs",
        ["timeout_at"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index(
        "remote_jobs_due",
        "remote_jobs",
        ["available_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND NOT mirrored"),
    )
    op.create_index(
        "remote_jobs_holder",
        "remote_jobs",
        ["key_id", "worker_id"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index(
        "remote_jobs_idempotency",
        "remote_jobs",
        ["tenant", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "remote_jobs_ingestion_task",
        "remote_jobs",
        ["tenant", "ingestion_task_id", "created_at", "id"],
        unique=False,
    )
    op.create_index("remote_jobs_by_status", "remote_jobs", ["tenant", "status", "created_at", "id"], unique=False)
    op.create_index(
        "remote_jobs_by_type", "remote_jobs", ["tenant", "content_type", "status", "created_at", "id"], unique=False
    )
    op.create_index(
        "remote_jobs_by_worker",
        "remote_jobs",
        ["tenant", "worker_id", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("worker_id IS NOT NULL"),
    )
    op.create_index(
        "remote_jobs_lease",
        "remote_jobs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index("remote_jobs_newest", "remote_jobs", ["tenant", "created_at", "id"], unique=False)
    op.create_index(
        "remote_jobs_purge",
        "remote_jobs",
        ["completed_at"],
        unique=False,
        postgresql_where=sa.text("completed_at IS NOT NULL"),
    )
    op.create_index(
        "remote_jobs_queue_clock",
        "remote_jobs",
        ["timeout_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "remote_jobs_recent",
        "remote_jobs",
        ["tenant", "content_type", "completed_at"],
        unique=False,
        postgresql_where=sa.text("status = 'completed'"),
    )
    op.create_table(
        "sweeps",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ran_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("sweeps_pkey")),
    )
    op.create_table(
        "continuations",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kwargs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column(
            "state",
            sa.Text(),
            sa.Computed(
                "CASE WHEN next_at IS NOT NULL AND tries >= 5 THEN 'failing'"
                " WHEN next_at IS NOT NULL THEN 'waiting'"
                " WHEN confirmed_at IS NOT NULL THEN 'confirmed' ELSE 'sent' END",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["remote_jobs.id"], name=op.f("continuations_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "n", name=op.f("continuations_pkey")),
    )
    op.create_index(
        "continuations_due", "continuations", ["next_at"], unique=False, postgresql_where=sa.text("next_at IS NOT NULL")
    )
    op.create_index(
        "continuations_state", "continuations", ["tenant", "state", "created_at", "job_id", "n"], unique=False
    )
    op.create_table(
        "job_batches",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("idempotency_hash", sa.LargeBinary(), nullable=False),
        sa.Column("job_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "idempotency_key", name=op.f("job_batches_pkey")),
    )
    op.create_index("job_batches_age", "job_batches", ["created_at"], unique=False)
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("lease_token", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("result_digest", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "how IN ('cancelled', 'completed', 'failed', 'lease_expired', 'released', 'timeout', 'unacknowledged')",
            name=op.f("job_attempts_how"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["remote_jobs.id"], name=op.f("job_attempts_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("job_attempts_pkey")),
    )
    op.create_table(
        "job_refusals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["remote_jobs.id"], name=op.f("job_refusals_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("job_refusals_pkey")),
    )
    op.create_index("job_refusals_job", "job_refusals", ["job_id", "id"], unique=False)
    op.create_table(
        "job_requests",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("what IN ('cancel', 'retry')", name=op.f("job_requests_what")),
        sa.ForeignKeyConstraint(
            ["job_id"], ["remote_jobs.id"], name=op.f("job_requests_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("job_requests_pkey")),
    )
    op.create_index("job_requests_job", "job_requests", ["job_id", "id"], unique=False)
    op.create_table(
        "job_results",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["remote_jobs.id"], name=op.f("job_results_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("job_results_pkey")),
    )
    op.create_index("job_attempts_worker", "job_attempts", ["key_id", "worker_id", "ended_at"], unique=False)
    op.create_index(
        "job_attempts_bad",
        "job_attempts",
        ["ended_at"],
        unique=False,
        postgresql_where=sa.text("how IN ('failed', 'lease_expired', 'unacknowledged')"),
    )
    op.create_table(
        "job_counts",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "content_type", "status", name=op.f("job_counts_pkey")),
    )
    op.create_table(
        "job_moves",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("gone", sa.Text(), nullable=True),
        sa.Column("came", sa.Text(), nullable=True),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "job_durations",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("median_seconds", sa.Float(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "content_type", name=op.f("job_durations_pkey")),
    )
    op.create_table(
        "worker_pauses",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("in_a_row", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("by IN ('bridge', 'operator')", name=op.f("worker_pauses_by")),
        sa.CheckConstraint(
            "by <> 'bridge' OR (until IS NOT NULL AND key_id IS NOT NULL)", name=op.f("worker_pauses_bridge")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("worker_pauses_pkey")),
        sa.UniqueConstraint(
            "tenant", "worker_id", "key_id", "by", name="worker_pauses_worker", postgresql_nulls_not_distinct=True
        ),
    )
    # Not compressed: then its size is known without reading it, which bounds what a claim takes (bridge/jobs/claim.py).
    op.execute("ALTER TABLE remote_jobs ALTER COLUMN task_options SET STORAGE EXTERNAL")
    op.execute(LEGAL_MOVES)
    op.execute(COUNTING)


def downgrade() -> None:
    op.drop_table("worker_pauses")
    op.drop_table("job_durations")
    op.drop_table("job_moves")
    op.drop_table("job_counts")
    op.drop_index("job_attempts_bad", table_name="job_attempts")
    op.drop_index("job_attempts_worker", table_name="job_attempts")
    op.drop_table("job_results")
    op.drop_index("job_requests_job", table_name="job_requests")
    op.drop_table("job_requests")
    op.drop_index("job_refusals_job", table_name="job_refusals")
    op.drop_table("job_refusals")
    op.drop_table("job_attempts")
    op.drop_index("job_batches_age", table_name="job_batches")
    op.drop_table("job_batches")
    op.drop_index("continuations_state", table_name="continuations")
    op.drop_index("continuations_due", table_name="continuations", postgresql_where=sa.text("next_at IS NOT NULL"))
    op.drop_table("continuations")
    op.drop_table("sweeps")
    op.drop_index("remote_jobs_recent", table_name="remote_jobs", postgresql_where=sa.text("status = 'completed'"))
    op.drop_index("remote_jobs_queue_clock", table_name="remote_jobs", postgresql_where=sa.text("status = 'pending'"))
    op.drop_index("remote_jobs_purge", table_name="remote_jobs", postgresql_where=sa.text("completed_at IS NOT NULL"))
    op.drop_index("remote_jobs_newest", table_name="remote_jobs")
    op.drop_index("remote_jobs_lease", table_name="remote_jobs", postgresql_where=sa.text("status = 'processing'"))
    op.drop_index("remote_jobs_by_worker", table_name="remote_jobs", postgresql_where=sa.text("worker_id IS NOT NULL"))
    op.drop_index("remote_jobs_by_type", table_name="remote_jobs")
    op.drop_index("remote_jobs_by_status", table_name="remote_jobs")
    op.drop_index("remote_jobs_ingestion_task", table_name="remote_jobs")
    op.drop_index(
        "remote_jobs_idempotency", table_name="remote_jobs", postgresql_where=sa.text("idempotency_key IS NOT NULL")
    )
    op.drop_index("remote_jobs_holder", table_name="remote_jobs", postgresql_where=sa.text("status = 'processing'"))
    op.drop_index(
        "remote_jobs_due", table_name="remote_jobs", postgresql_where=sa.text("status = 'pending' AND NOT mirrored")
    )
    op.drop_index("remote_jobs_deadline", table_name="remote_jobs", postgresql_where=sa.text("status = 'processing'"))
    op.drop_index("remote_jobs_claim", table_name="remote_jobs", postgresql_where=sa.text("status = 'pending'"))
    op.drop_table("remote_jobs")
    op.drop_table("api_keys")
    for function in ("legal_move", "came", "moved", "gone"):
        op.execute(f"DROP FUNCTION remote_jobs_{function}()")
