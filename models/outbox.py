"""The outbox: outcomes to be handed to the pipeline, recorded in the transaction of the state change."""

from sqlalchemy import JSON, Column, Computed, ForeignKey, Index, Integer, Table, Text, Uuid, text

from models.job import Moment, metadata
from models.job_state import OutcomeState

FAILING_TRIES = 5  # sendings without success, or without confirmation, after which an outcome counts as failing

_STATE = f"""CASE WHEN next_at IS NOT NULL AND tries >= {FAILING_TRIES} THEN '{OutcomeState.FAILING}'
 WHEN next_at IS NOT NULL THEN '{OutcomeState.WAITING}'
 WHEN confirmed_at IS NOT NULL THEN '{OutcomeState.CONFIRMED}' ELSE '{OutcomeState.SENT}' END"""

# `kwargs` lacks `content`: it is read from job_results when the message is sent (a completed job never changes).
continuations = Table(
    "continuations",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kwargs", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment),  # when it is to be sent (again); null: handed over
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("sent_at", Moment),
    Column("confirmed_at", Moment),
    Column("last_error", Text),
    Column("state", Text, Computed(_STATE, persisted=True), nullable=False),
)
_c = continuations.c
Index("continuations_due", _c.next_at, postgresql_where=text("next_at IS NOT NULL"))
# The list for operators, newest first.
Index("continuations_state", _c.tenant, _c.state, _c.created_at, _c.job_id, _c.n)
