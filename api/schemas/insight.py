"""Requests and answers of operators."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range

from api.schemas.facts import ShownFacts
from api.schemas.problem import PRIORITIES, STATES
from api.schemas.strict import QueryInteger
from bridge.bounded_schema import BoundedList, Strict, member, optional
from bridge.jobs.fields import StrictInteger
from models.job_state import BATCH_ENDED, UNSERVED, AttemptEnd
from models.pause import PausedBy

COUNTS = fields.Dict(keys=fields.String(validate=OneOf(STATES)), values=fields.Integer(), required=True)


class MedianDuration(Schema):
    """How long a content type's recent completed jobs took, from claim to result."""

    seconds = fields.Float(required=True)
    jobs = member(fields.Integer, "Number of jobs in the sample.")


class Sweep(Schema):
    """A sweep's last run."""

    name = fields.String(required=True)
    age_seconds = member(fields.Float, "Seconds since the last run.")
    took_seconds = fields.Float(required=True)
    changed = member(fields.Integer, "Rows moved or repaired by the last run.")
    backlog = member(
        fields.Integer, "Work that is due and not yet done, counted up to 1000; null if unknown.", null=True
    )


class Statistics(Schema):
    """The numbers of the key's tenant; the sweeps are those of the whole bridge."""

    by_status = COUNTS
    by_content_type = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(keys=fields.String(validate=OneOf(STATES)), values=fields.Integer()),
        required=True,
    )
    content_types = member(fields.Integer, "Total number; the 200 with the most jobs are listed.")
    oldest_pending_seconds = member(
        fields.Float, "Age in seconds of the oldest claimable job; null if there is none.", null=True
    )
    oldest_pending_seconds_by_content_type = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    median_durations = fields.Dict(keys=fields.String(), values=fields.Nested(MedianDuration()), required=True)
    parked_polls = member(fields.Integer, "Polls waiting now; null while Redis is unavailable.", null=True)
    sweeps = fields.List(fields.Nested(Sweep()), required=True)


class ShownKey(Schema):
    """A key, without its secret."""

    name = fields.String(required=True)
    prefix = fields.String(required=True)


class ShownPause(Schema):
    """Why and until when a worker is given no jobs."""

    by = fields.String(required=True, validate=OneOf([str(by) for by in PausedBy]))
    reason = fields.String(required=True)
    paused_at = fields.AwareDateTime(required=True)
    until = member(fields.AwareDateTime, "null: until resumed.", null=True)
    drain = member(fields.Boolean, "Whether it is asked to finish its jobs and end.")


class ShownWorker(Schema):
    """A worker, the pair of a key and a worker_id."""

    worker_id = fields.String(required=True)
    key = fields.Nested(ShownKey(), required=True, allow_none=True)
    content_types = fields.List(fields.String(), required=True)
    denied_content_types = member(
        fields.List, "Content types that it polls for and its key does not allow.", fields.String()
    )
    last_seen = member(fields.AwareDateTime, "Time of its last poll or sign of life; up to 10 s late.", null=True)
    jobs_in_hand = fields.Integer(required=True)
    slots_busy = member(fields.Integer, "As reported by its last poll; null if not reported.", null=True)
    slots_free = member(fields.Integer, "As reported by its last poll; null if not reported.", null=True)
    facts = fields.Nested(ShownFacts(), required=True)
    job_ids = member(fields.List, "Up to 100 of the jobs it holds.", fields.UUID())
    paused = fields.Nested(ShownPause(), required=True, allow_none=True)


class WorkersQuery(Strict):
    """Which page of the workers."""

    limit = QueryInteger(load_default=100, validate=Range(1, 200))
    cursor = fields.String(load_default=None, validate=Length(1, 100))


class WorkerList(Schema):
    """The tenant's workers that were seen within an hour, hold a job or are paused, the latest seen first."""

    workers = fields.List(fields.Nested(ShownWorker()), required=True)
    count = member(fields.Integer, "Of all workers, not only those on this page.")
    next_cursor = fields.String(required=True, allow_none=True)
    redis = member(
        fields.String,
        "`away`: polls are unknown; only workers that hold a job or are paused are listed.",
        validate=OneOf(["ok", "away"]),
    )


class PauseWorker(Strict):
    """Pause a worker: give it no jobs."""

    reason = member(fields.String, "Shown to the worker.", validate=Length(1, 500))
    seconds = optional(StrictInteger, "Duration in seconds; omit to pause until resumed.", validate=Range(1, 2592000))
    key = optional(
        fields.String,
        "The prefix of a key; omit to address this worker_id under every key of the tenant.",
        validate=Length(1, 100),
    )


class DrainWorker(PauseWorker):
    """Drain a worker: let it finish what it holds and end."""

    reason = optional(fields.String, "Shown to the worker.", load_default="It is to end.", validate=Length(1, 500))
    seconds = optional(
        StrictInteger,
        "For how many seconds a worker with this ID is given no jobs and is asked to end.",
        load_default=86400,
        validate=Range(1, 2592000),
    )


class ResumeWorker(Strict):
    """Resume a worker: give it jobs again."""

    key = fields.String(load_default=None, validate=Length(1, 100))


class PauseAnswer(Schema):
    """Whether the worker is paused now."""

    worker_id = fields.String(required=True)
    paused = fields.Boolean(required=True)
    drain = member(fields.Boolean, "Whether it is asked to end.")
    until = fields.AwareDateTime(required=True, allow_none=True)


class Evicted(Schema):
    """The jobs taken from a worker."""

    worker_id = fields.String(required=True)
    released = member(fields.Integer, "Its jobs, now at the head of their queues.")


class EvictWorkers(Strict):
    """Workers that have vanished."""

    worker_ids = BoundedList(fields.String(validate=Length(1, 255)), most=1000, required=True)


class EvictedWorkers(Schema):
    """The jobs taken from each worker."""

    released = member(fields.Integer, "Their jobs, now at the head of their queues.")
    workers = fields.List(fields.Nested(Evicted()), required=True)


class ScalingQuery(Strict):
    """The time within which the queues are to be cleared."""

    clear_within = optional(
        QueryInteger, "In seconds; `workers_wanted` is computed for it.", load_default=600, validate=Range(1, 604800)
    )


class QueueScale(Schema):
    """How much work of a content type there is, and how many workers it needs; zeros included."""

    content_type = fields.String(required=True)
    claimable = member(fields.Integer, "Jobs that may be claimed now.")
    processing = fields.Integer(required=True)
    workers_waiting = member(fields.Integer, "Workers polling for it now; null without Redis.", null=True)
    workers_busy = member(fields.Integer, "Workers that hold a job of it.")
    oldest_seconds = member(fields.Float, "Age of the oldest claimable job, or 0.")
    median_seconds = member(fields.Float, "From claim to result; at first a guess.")
    workers_wanted = member(
        fields.Integer, "Workers with one slot that clear the queue within `clear_within`; at least 1 for any job."
    )


class Scaling(Schema):
    """All content types that have a job or a worker."""

    clear_within = fields.Integer(required=True)
    queues = fields.List(fields.Nested(QueueScale()), required=True)


class RunningClock(Schema):
    """A running clock."""

    name = fields.String(required=True, validate=OneOf(["queue", "acknowledgement", "lease", "deadline"]))
    ends_at = fields.AwareDateTime(required=True)
    then = fields.String(required=True)


class EndedAttempt(Schema):
    """How one of the last attempts ended."""

    attempt = fields.Integer(required=True)
    worker_id = fields.String(required=True)
    how = fields.String(required=True, validate=OneOf([str(end) for end in AttemptEnd]))
    why = fields.String(required=True, allow_none=True)
    claimed_at = fields.AwareDateTime(required=True)
    ended_at = fields.AwareDateTime(required=True)


class HandedOver(Schema):
    """The delivery of the job's outcome to the pipeline."""

    n = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    sent_at = fields.AwareDateTime(required=True, allow_none=True)
    confirmed_at = fields.AwareDateTime(required=True, allow_none=True)
    next_at = member(fields.AwareDateTime, "Time of the next resend.", null=True)
    tries = fields.Integer(required=True)
    last_error = fields.String(required=True, allow_none=True)


class Explanation(Schema):
    """Why a job is in its state."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=OneOf([*STATES, UNSERVED, BATCH_ENDED]))
    content_type = fields.String(required=True)
    priority = fields.String(required=True, validate=OneOf(PRIORITIES))
    sentences = member(fields.List, "The explanation in plain sentences.", fields.String())
    waits_for = member(
        fields.String,
        "What the pending job is waiting for.",
        null=True,
        validate=OneOf(["available_at", "backoff", "worker", "turn", "pickup"]),
    )
    available_at = fields.AwareDateTime(required=True)
    jobs_ahead = member(fields.Integer, "Counted up to 1000.", null=True)
    jobs_ahead_or_more = member(fields.Boolean, "True if jobs_ahead is a lower bound.")
    workers = member(
        fields.List,
        "Workers that poll for the content type of a pending job; the holder of a processing one.",
        fields.Nested(ShownWorker()),
    )
    workers_count = member(fields.Integer, "`workers` lists at most 50 of them.")
    clocks = fields.List(fields.Nested(RunningClock()), required=True)
    estimated_start = fields.AwareDateTime(required=True, allow_none=True)
    estimated_completion = fields.AwareDateTime(required=True, allow_none=True)
    attempts = member(fields.List, "The five most recent ones.", fields.Nested(EndedAttempt()))
    completed_at = fields.AwareDateTime(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
    continuation = fields.Nested(HandedOver(), required=True, allow_none=True)
