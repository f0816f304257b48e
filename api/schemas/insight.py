"""What those who operate the bridge send and get."""

from marshmallow import Schema, fields, validate

from api.schemas.problem import PRIORITIES, STATES
from api.schemas.strict import QueryInteger
from bridge.bounded_schema import Strict
from bridge.jobs.fields import StrictInteger
from models.pause import PausedBy
from models.state import AttemptEnd

COUNTS = fields.Dict(keys=fields.String(validate=validate.OneOf(STATES)), values=fields.Integer(), required=True)


class MedianDuration(Schema):
    """How long a content type's recent completed jobs took, from claim to result."""

    seconds = fields.Float(required=True)
    jobs = fields.Integer(required=True, metadata={"description": "How many it is the median of."})


class Sweep(Schema):
    """A sweep's last run."""

    name = fields.String(required=True)
    age_seconds = fields.Float(required=True, metadata={"description": "Since it ran."})
    took_seconds = fields.Float(required=True)
    changed = fields.Integer(required=True, metadata={"description": "What it moved or repaired: the gap."})
    backlog = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "What is due and not done, counted to 1000; null where that cannot be told."},
    )


class Statistics(Schema):
    """The numbers of the key's tenant; the sweeps are those of the whole bridge."""

    by_status = COUNTS
    by_content_type = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(keys=fields.String(validate=validate.OneOf(STATES)), values=fields.Integer()),
        required=True,
    )
    content_types = fields.Integer(
        required=True, metadata={"description": "How many there are; the 200 with the most jobs are shown."}
    )
    oldest_pending_seconds = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "For how long the oldest job that may be claimed has waited; null: there is none."},
    )
    oldest_pending_seconds_by_content_type = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    median_durations = fields.Dict(keys=fields.String(), values=fields.Nested(MedianDuration()), required=True)
    parked_polls = fields.Integer(
        required=True, allow_none=True, metadata={"description": "Polls that wait now; null: Redis does not answer."}
    )
    sweeps = fields.List(fields.Nested(Sweep()), required=True)


class ShownKey(Schema):
    """A key, without its secret."""

    name = fields.String(required=True)
    prefix = fields.String(required=True)


class ShownPause(Schema):
    """Why and until when a worker is given no jobs."""

    by = fields.String(required=True, validate=validate.OneOf([str(by) for by in PausedBy]))
    reason = fields.String(required=True)
    paused_at = fields.AwareDateTime(required=True)
    until = fields.AwareDateTime(required=True, allow_none=True, metadata={"description": "null: until it is resumed."})


class ShownWorker(Schema):
    """A worker, the pair of a key and a worker_id."""

    worker_id = fields.String(required=True)
    key = fields.Nested(ShownKey(), required=True, allow_none=True)
    content_types = fields.List(fields.String(), required=True)
    denied_content_types = fields.List(
        fields.String(), required=True, metadata={"description": "It asks for them; its key does not allow them."}
    )
    last_seen = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "When it last asked, or showed a sign of life of a job; up to 10 s late."},
    )
    jobs_in_hand = fields.Integer(required=True)
    slots_busy = fields.Integer(
        required=True, allow_none=True, metadata={"description": "As its last poll said; null where it said nothing."}
    )
    slots_free = fields.Integer(
        required=True, allow_none=True, metadata={"description": "As its last poll said; null where it said nothing."}
    )
    job_ids = fields.List(fields.UUID(), required=True, metadata={"description": "Up to 100 of the jobs in hand."})
    paused = fields.Nested(ShownPause(), required=True, allow_none=True)


class WorkersQuery(Strict):
    """Which page of the workers."""

    limit = QueryInteger(load_default=100, validate=validate.Range(1, 200))
    cursor = fields.String(load_default=None, validate=validate.Length(1, 100))


class WorkerList(Schema):
    """The workers of the key's tenant, those seen last first: seen within an hour, holding a job, or paused."""

    workers = fields.List(fields.Nested(ShownWorker()), required=True)
    count = fields.Integer(required=True, metadata={"description": "Of all of them, on this page or not."})
    next_cursor = fields.String(required=True, allow_none=True)
    redis = fields.String(
        required=True,
        validate=validate.OneOf(["ok", "away"]),
        metadata={"description": "away: who asks is not known; only those that hold a job or are paused are shown."},
    )


class PauseWorker(Strict):
    """Give a worker no jobs."""

    reason = fields.String(
        required=True, validate=validate.Length(1, 500), metadata={"description": "The worker is told."}
    )
    seconds = StrictInteger(
        load_default=None,
        allow_none=True,
        validate=validate.Range(1, 2592000),
        metadata={"description": "For so long; without it until it is resumed."},
    )
    key = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 100),
        metadata={"description": "The prefix of a key; without it all keys of the tenant with this worker_id."},
    )


class ResumeWorker(Strict):
    """Give a worker jobs again."""

    key = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 100))


class PauseAnswer(Schema):
    """Whether the worker is paused now."""

    worker_id = fields.String(required=True)
    paused = fields.Boolean(required=True)
    until = fields.AwareDateTime(required=True, allow_none=True)


class Evicted(Schema):
    """What was taken from a worker."""

    worker_id = fields.String(required=True)
    released = fields.Integer(required=True, metadata={"description": "Its jobs, which are at the head again."})


class ScalingQuery(Strict):
    """In which time the queues are to be cleared."""

    clear_within = QueryInteger(
        load_default=600,
        validate=validate.Range(1, 604800),
        metadata={"description": "Seconds; `workers_wanted` is made for it."},
    )


class QueueScale(Schema):
    """How much of a content type there is to do, and how many workers that asks for; zeros included."""

    content_type = fields.String(required=True)
    claimable = fields.Integer(required=True, metadata={"description": "Jobs that may be claimed now."})
    processing = fields.Integer(required=True)
    workers_waiting = fields.Integer(
        required=True, allow_none=True, metadata={"description": "That ask for it now; null: Redis does not answer."}
    )
    oldest_seconds = fields.Float(required=True, metadata={"description": "Of the oldest claimable job; else 0."})
    median_seconds = fields.Float(required=True, metadata={"description": "From claim to result; before, a guess."})
    workers_wanted = fields.Integer(
        required=True,
        metadata={"description": "One job at a time each, to do all within `clear_within`; at least 1 for any job."},
    )


class Scaling(Schema):
    """All content types that have a job or a worker."""

    clear_within = fields.Integer(required=True)
    queues = fields.List(fields.Nested(QueueScale()), required=True)


class RunningClock(Schema):
    """A clock that runs."""

    name = fields.String(required=True, validate=validate.OneOf(["queue", "acknowledgement", "lease", "deadline"]))
    ends_at = fields.AwareDateTime(required=True)
    then = fields.String(required=True)


class EndedAttempt(Schema):
    """How one of the last attempts ended."""

    attempt = fields.Integer(required=True)
    worker_id = fields.String(required=True)
    how = fields.String(required=True, validate=validate.OneOf([str(end) for end in AttemptEnd]))
    why = fields.String(required=True, allow_none=True)
    claimed_at = fields.AwareDateTime(required=True)
    ended_at = fields.AwareDateTime(required=True)


class HandedOver(Schema):
    """What became of the outcome that the pipeline is to hear of."""

    n = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    sent_at = fields.AwareDateTime(required=True, allow_none=True)
    confirmed_at = fields.AwareDateTime(required=True, allow_none=True)
    next_at = fields.AwareDateTime(required=True, allow_none=True, metadata={"description": "When it is sent again."})
    tries = fields.Integer(required=True)
    last_error = fields.String(required=True, allow_none=True)


class Explanation(Schema):
    """Why a job is where it is."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATES))
    content_type = fields.String(required=True)
    priority = fields.String(required=True, validate=validate.OneOf(PRIORITIES))
    sentences = fields.List(fields.String(), required=True, metadata={"description": "The same for a person."})
    waits_for = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf(["available_at", "backoff", "worker", "turn", "pickup"]),
        metadata={"description": "What a pending job waits for."},
    )
    available_at = fields.AwareDateTime(required=True)
    jobs_ahead = fields.Integer(required=True, allow_none=True, metadata={"description": "Counted to 1000."})
    jobs_ahead_or_more = fields.Boolean(required=True, metadata={"description": "There may be more than jobs_ahead."})
    workers = fields.List(
        fields.Nested(ShownWorker()),
        required=True,
        metadata={"description": "Of a pending job those that ask for its type; of one that is processed its holder."},
    )
    workers_count = fields.Integer(required=True, metadata={"description": "`workers` shows 50 of them at most."})
    clocks = fields.List(fields.Nested(RunningClock()), required=True)
    estimated_start = fields.AwareDateTime(required=True, allow_none=True)
    estimated_completion = fields.AwareDateTime(required=True, allow_none=True)
    attempts = fields.List(fields.Nested(EndedAttempt()), required=True, metadata={"description": "The last five."})
    completed_at = fields.AwareDateTime(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
    continuation = fields.Nested(HandedOver(), required=True, allow_none=True)
