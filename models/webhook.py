"""Webhooks: outcomes to be posted to a receiver, recorded in the transaction of the state change."""

from sqlalchemy import JSON, Column, Computed, ForeignKey, Index, Integer, Table, Text, Uuid, text

from models.job import Moment, metadata
from models.job_state import WebhookState
from models.outbox import FAILING_TRIES

_STATE = f"""CASE WHEN next_at IS NOT NULL AND tries >= {FAILING_TRIES} THEN '{WebhookState.FAILING}'
 WHEN next_at IS NOT NULL THEN '{WebhookState.WAITING}'
 WHEN delivered_at IS NOT NULL THEN '{WebhookState.DELIVERED}' ELSE '{WebhookState.FAILED}' END"""

# `kwargs` lacks `content`, as in the outbox. Numbered as the job's outcomes are; 0 is the end of its batch.
webhooks = Table(
    "webhooks",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Uuid, nullable=False),  # whose secret signs it
    Column("url", Text, nullable=False),
    # Host and port: all that is shown of the address, and the unit of taking turns.
    Column("receiver", Text, Computed("lower(split_part(split_part(split_part(url, '://', 2), '/', 1), '?', 1))",
                                      persisted=True), nullable=False),
    Column("kwargs", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("since", Moment, nullable=False),  # when the time starts after which it is given up; a resend restarts it
    Column("next_at", Moment),  # when it is to be sent (again); null: delivered, or given up
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("delivered_at", Moment),
    Column("last_error", Text),
    Column("response_status", Integer),  # of the last answer
    Column("response_excerpt", Text),  # the beginning of its text, printable
    Column("state", Text, Computed(_STATE, persisted=True), nullable=False),
)  # fmt: skip
_c = webhooks.c
_ON_ITS_WAY = text("next_at IS NOT NULL")
Index("webhooks_of_tenant", _c.tenant, _c.next_at, postgresql_where=_ON_ITS_WAY)
Index("webhooks_of_receiver", _c.tenant, _c.receiver, _c.next_at, postgresql_where=_ON_ITS_WAY)
# The list for operators, newest first.
Index("webhooks_state", _c.tenant, _c.state, _c.created_at, _c.job_id, _c.n)
