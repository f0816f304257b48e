"""Workers that are given no jobs for a while: paused by an operator, or by the bridge because they are in trouble."""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from models.job import Moment, metadata, one_of


class PausedBy(StrEnum):
    """Who paused a worker."""

    OPERATOR = "operator"  # until `until`, or until an operator resumes it
    BRIDGE = "bridge"  # its last claims were all lost or failed at once; a success ends it


# A pause by the bridge is kept after it has ended, until a success: it decides how long the next one is.
worker_pauses = Table(
    "worker_pauses",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("key_id", Uuid),  # null: whichever key the worker uses
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("paused_at", Moment, nullable=False),
    Column("until", Moment),  # null: until it is resumed
    Column("in_a_row", Integer, nullable=False, server_default=text("1")),  # pauses by the bridge without a success
    # By an operator: the worker is asked to finish what it holds, and to end.
    Column("drain", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint(
        "tenant", "worker_id", "key_id", "by", name="worker_pauses_worker", postgresql_nulls_not_distinct=True
    ),
    CheckConstraint(one_of("by", PausedBy), name="by"),
    CheckConstraint(f"by <> '{PausedBy.BRIDGE}' OR (until IS NOT NULL AND key_id IS NOT NULL)", name="bridge"),
)
