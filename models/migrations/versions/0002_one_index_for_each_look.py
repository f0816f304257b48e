"""Each partial index of the jobs has a predicate of its own; autovacuum keeps up with the table.

Builds small indexes anew, for each of which the table is read once: a second or two for a million jobs, in which
nothing is written. Code of the revision before runs on, but its sweeps read the table until it is replaced.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# name: (columns, predicate before, predicate now)
INDEXES = {
    "remote_jobs_claim": (
        ["tenant", "content_type", "priority", "queued_at", "id"],
        "status = 'pending'",
        "status = 'pending' AND completed_at IS NULL",
    ),
    "remote_jobs_queue_clock": (
        ["timeout_at"],
        "status = 'pending'",
        "completed_at IS NULL AND lease_expires_at IS NULL",
    ),
    "remote_jobs_deadline": (["timeout_at"], "status = 'processing'", "completed_at IS NULL AND ack_by IS NOT NULL"),
    "remote_jobs_lease": (["lease_expires_at"], "status = 'processing'", "lease_expires_at IS NOT NULL"),
    "remote_jobs_holder": (
        ["key_id", "worker_id"],
        "status = 'processing'",
        "status = 'processing' AND ack_by IS NOT NULL",
    ),
    "remote_jobs_due": (
        ["available_at"],
        "status = 'pending' AND NOT mirrored",
        "completed_at IS NULL AND ack_by IS NULL AND NOT mirrored",
    ),
}
# Rows change four times in their life, and a queue fills within a minute.
AUTOVACUUM = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_cost_delay": "1",
    "autovacuum_analyze_scale_factor": "0.02",
}


def _rebuild(which: int) -> None:
    for name, (columns, *predicates) in INDEXES.items():
        op.drop_index(name, table_name="remote_jobs")
        op.create_index(name, "remote_jobs", columns, postgresql_where=sa.text(predicates[which]))


def upgrade() -> None:
    _rebuild(1)
    op.execute("ALTER TABLE remote_jobs SET (" + ", ".join(f"{k} = {v}" for k, v in AUTOVACUUM.items()) + ")")


def downgrade() -> None:
    op.execute("ALTER TABLE remote_jobs RESET (" + ", ".join(AUTOVACUUM) + ")")
    _rebuild(0)
