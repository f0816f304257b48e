"""The life of a job: its states and the table of edges between them, once.

The guards of the UPDATEs (bridge/jobs/transition.py), the CHECK constraints and the database's trigger against illegal
changes, and the diagram in docs/architecture.md are all made from this table or tested against it.
"""

from enum import StrEnum
from typing import NamedTuple


class JobState(StrEnum):
    """The state of a job; the comment says what moves it on."""

    PENDING = "pending"  # a worker's claim, or the queue clock
    PROCESSING = "processing"  # its holder's result, or a clock
    COMPLETED = "completed"  # nobody: the result is accepted
    FAILED = "failed"  # an operator's retry
    TIMEOUT = "timeout"  # an operator's retry
    CANCELLED = "cancelled"  # an operator's retry


FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED})


class AttemptEnd(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"  # its result was accepted, with success
    FAILED = "failed"  # its result was accepted, without success, or could not be stored
    LEASE_EXPIRED = "lease_expired"  # acknowledged, then silent for longer than its lease
    UNACKNOWLEDGED = "unacknowledged"  # no sign of life within the acknowledgement window
    RELEASED = "released"  # given back by its worker
    TIMEOUT = "timeout"  # ran into the deadline
    CANCELLED = "cancelled"  # the job was cancelled under it


# After these ends the work may still arrive, and counts (a late result).
LATE_ENDS = frozenset({AttemptEnd.LEASE_EXPIRED, AttemptEnd.UNACKNOWLEDGED})
# These may be the worker's fault.
BAD_ENDS = LATE_ENDS | {AttemptEnd.FAILED}


class Change(StrEnum):
    """What can happen to a job; the name of an edge."""

    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"  # a retry is spent: back to pending after a backoff
    RETURN = "return"  # no retry is spent: back to the head
    FAIL = "fail"
    LATE_COMPLETE = "late_complete"
    LATE_RETRY = "late_retry"
    LATE_FAIL = "late_fail"
    EXPIRE_QUEUE = "expire_queue"
    EXPIRE_DEADLINE = "expire_deadline"
    CANCEL = "cancel"
    RESTART = "restart"  # an operator's retry


# What a result can do that comes after its attempt has ended.
LATE_CHANGES = frozenset({Change.LATE_COMPLETE, Change.LATE_RETRY, Change.LATE_FAIL})


class Asked(StrEnum):
    """What can be requested of a job; stored with it (models/request.py)."""

    CANCEL = "cancel"
    RETRY = "retry"


# The changes that are made on request.
ON_REQUEST = {Change.CANCEL: Asked.CANCEL, Change.RESTART: Asked.RETRY}


class Edge(NamedTuple):
    """The states a change may start from, and the one it leads to."""

    sources: frozenset[JobState]
    target: JobState


def _edge(target: JobState, *sources: JobState) -> Edge:
    return Edge(frozenset(sources), target)


EDGES: dict[Change, Edge] = {
    Change.CLAIM: _edge(JobState.PROCESSING, JobState.PENDING),
    Change.COMPLETE: _edge(JobState.COMPLETED, JobState.PROCESSING),
    Change.RETRY: _edge(JobState.PENDING, JobState.PROCESSING),
    Change.RETURN: _edge(JobState.PENDING, JobState.PROCESSING),
    Change.FAIL: _edge(JobState.FAILED, JobState.PROCESSING),
    Change.LATE_COMPLETE: _edge(JobState.COMPLETED, JobState.PENDING),
    Change.LATE_RETRY: _edge(JobState.PENDING, JobState.PENDING),
    Change.LATE_FAIL: _edge(JobState.FAILED, JobState.PENDING),
    Change.EXPIRE_QUEUE: _edge(JobState.TIMEOUT, JobState.PENDING),
    Change.EXPIRE_DEADLINE: _edge(JobState.TIMEOUT, JobState.PROCESSING),
    Change.CANCEL: _edge(JobState.CANCELLED, JobState.PENDING, JobState.PROCESSING),
    Change.RESTART: _edge(JobState.PENDING, JobState.FAILED, JobState.TIMEOUT, JobState.CANCELLED),
}


def legal_moves() -> frozenset[tuple[JobState, JobState]]:
    """Return every (from, to) that some change allows."""
    return frozenset((source, edge.target) for edge in EDGES.values() for source in edge.sources)


class Priority(StrEnum):
    """Which of a content type's three lists a job waits in."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is served first; what the database stores and sorts by."""
        return list(Priority).index(self)


BATCH_ENDED = "batch_ended"  # the `status` of an outcome: all jobs of a batch have ended
UNSERVED = "unserved"  # the `status` of an outcome, not of a job: no worker polls for its content type; it waits on


class WebhookState(StrEnum):
    """How far an outcome has come on its way to its receiver; the comment says what moves it on."""

    WAITING = "waiting"  # the next sending
    FAILING = "failing"  # the same, but it was tried often: somebody should look why
    DELIVERED = "delivered"  # nobody: the receiver has acknowledged it
    FAILED = "failed"  # an operator's resend: it was given up


class OutcomeState(StrEnum):
    """How far an outcome has come on its way to the pipeline; the comment says what moves it on."""

    WAITING = "waiting"  # the next sending, or the awaited confirmation
    FAILING = "failing"  # the same, but it was tried often: somebody should look why
    SENT = "sent"  # nobody: the broker has it, and no confirmation is required
    CONFIRMED = "confirmed"  # nobody: the pipeline's work on it is safe
