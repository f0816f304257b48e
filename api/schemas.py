"""Every wire shape, once."""

from marshmallow import EXCLUDE, RAISE, Schema, fields, validate

from bridge.job_fields import CreateFields, JsonObject, StrictBoolean, StrictFloat, Text
from bridge.names import CONTENT_TYPE_PATTERN
from models.state import AttemptEnd, JobState, Priority

STATES = [str(state) for state in JobState]


class Problem(Schema):
    """An error (RFC 9457)."""

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "A sentence for a person."})
    code = fields.String(required=True, metadata={"description": "Stable; see docs/protocol.md."})
    errors = fields.Dict(keys=fields.String(), metadata={"description": "Validation: field → messages."})


class CreateJob(CreateFields):
    """A new job."""


class IdempotencyHeader(Schema):
    """The header that makes a create safe to repeat."""

    class Meta:
        unknown = EXCLUDE

    idempotency_key = Text(
        data_key="Idempotency-Key", load_default=None, validate=validate.Length(1, 255), allow_none=False
    )


class JobCreated(Schema):
    """The answer to a create."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATES))
    created_at = fields.AwareDateTime(required=True)


class PollQuery(Schema):
    """What a worker asks for."""

    class Meta:
        unknown = EXCLUDE

    worker_id = Text(required=True, validate=validate.Length(1, 255))
    content_types = Text(
        required=True,
        metadata={"description": "1 to 32 content types, comma-separated.", "example": "audio,video"},
    )
    max_jobs = fields.Integer(load_default=1, validate=validate.Range(1, 100))
    wait = fields.Float(
        load_default=None,
        allow_nan=False,
        validate=validate.Range(0, 60),
        metadata={"description": "Seconds. Without it: 10, or 0 while this worker holds a job."},
    )
    lease = fields.Integer(
        load_default=None,
        validate=validate.Range(10, 3600),
        metadata={"description": "Seconds that the worker may be silent. Without it: until the deadline."},
    )
    claim_id = fields.String(
        load_default=None,
        validate=validate.Regexp(r"^[A-Za-z0-9_-]{1,64}\Z", error="Must be 1 to 64 of A-Z a-z 0-9 _ and -."),
        metadata={
            "description": "Names this claim: asking again with it gives the same jobs while they are unacknowledged.",
            "pattern": "^[A-Za-z0-9_-]{1,64}$",
        },
    )


class ClaimedJob(Schema):
    """A job in its worker's hands."""

    job_id = fields.UUID(required=True)
    source_file_url = fields.String(required=True)
    content_type = fields.String(required=True)
    task_options = fields.Dict(required=True)
    attempt = fields.Integer(required=True)
    retry_count = fields.Integer(required=True)
    priority = fields.String(required=True, validate=validate.OneOf([str(p) for p in Priority]))
    timeout_at = fields.AwareDateTime(required=True, metadata={"description": "The deadline of this attempt."})
    lease_token = fields.String(required=True)
    lease_expires_at = fields.AwareDateTime(required=True)
    ack_by = fields.AwareDateTime(required=True, metadata={"description": "Give a sign of life before this moment."})


class PollAnswer(Schema):
    """What a worker gets; the first job's fields stand outside too, null when none came."""

    job_id = fields.UUID(required=True, allow_none=True)
    source_file_url = fields.String(required=True, allow_none=True)
    content_type = fields.String(required=True, allow_none=True)
    task_options = fields.Dict(required=True, allow_none=True)
    jobs = fields.List(fields.Nested(ClaimedJob()), required=True)


class Result(Schema):
    """What came of an attempt. Unknown fields are ignored."""

    class Meta:
        unknown = EXCLUDE

    success = StrictBoolean(required=True)
    content = fields.String(load_default=None, allow_none=True)
    metadata = JsonObject(load_default=None, allow_none=True)
    error_message = fields.String(load_default=None, allow_none=True)
    processing_time = StrictFloat(
        load_default=None, allow_none=True, validate=validate.Range(min=0), metadata={"description": "Seconds."}
    )
    retryable = StrictBoolean(load_default=True, allow_none=True)
    lease_token = Text(load_default=None, allow_none=True)


class ResultAnswer(Schema):
    """What became of a result."""

    status = fields.String(required=True, validate=validate.OneOf(STATES))
    ingestion_continued = fields.Boolean(
        required=True, metadata={"description": "Whether a continuation is durably recorded."}
    )


class Heartbeat(Schema):
    """A sign of life."""

    class Meta:
        unknown = EXCLUDE

    lease_token = Text(load_default=None, allow_none=True)
    progress = StrictFloat(load_default=None, allow_none=True, validate=validate.Range(0, 1))
    message = Text(load_default=None, allow_none=True, validate=validate.Length(max=500))


class Progress(Schema):
    """A sign of life of an existing client."""

    class Meta:
        unknown = EXCLUDE

    percentage = StrictFloat(required=True, validate=validate.Range(0, 100))
    message = Text(load_default=None, allow_none=True, validate=validate.Length(max=500))


class HeartbeatAnswer(Schema):
    """The lease as it is stored."""

    status = fields.String(required=True, validate=validate.OneOf(STATES))
    lease_expires_at = fields.AwareDateTime(required=True, allow_none=True)
    cancel_requested = fields.Boolean(required=True)


class Release(Schema):
    """A worker gives its job back."""

    class Meta:
        unknown = EXCLUDE

    lease_token = Text(load_default=None, allow_none=True)


class StateAnswer(Schema):
    """The job's state after a change."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATES))


class JobStatus(Schema):
    """The short view of a job."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATES))
    worker_id = fields.String(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    started_at = fields.AwareDateTime(required=True, allow_none=True)
    completed_at = fields.AwareDateTime(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
    retry_count = fields.Integer(required=True)
    estimated_completion = fields.AwareDateTime(required=True, allow_none=True)
    content_type = fields.String(required=True)
    attempt = fields.Integer(required=True)
    progress = fields.Float(required=True, allow_none=True)
    message = fields.String(required=True, allow_none=True)
    timeout_at = fields.AwareDateTime(required=True)


class Job(Schema):
    """A job as it stands in a list: everything but its attempts, its result's content and any token."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATES))
    ingestion_task_id = fields.String(required=True)
    source_file_path = fields.String(required=True)
    content_type = fields.String(required=True)
    task_options = fields.Dict(required=True)
    priority = fields.String(required=True, validate=validate.OneOf([str(p) for p in Priority]))
    worker_id = fields.String(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    retry_count = fields.Integer(required=True)
    max_retries = fields.Integer(required=True)
    timeout_seconds = fields.Integer(required=True)
    queue_timeout_seconds = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    queued_at = fields.AwareDateTime(required=True)
    available_at = fields.AwareDateTime(required=True)
    started_at = fields.AwareDateTime(required=True, allow_none=True)
    acknowledged_at = fields.AwareDateTime(required=True, allow_none=True)
    lease_expires_at = fields.AwareDateTime(required=True, allow_none=True)
    timeout_at = fields.AwareDateTime(required=True)
    completed_at = fields.AwareDateTime(required=True, allow_none=True)
    progress = fields.Float(required=True, allow_none=True)
    message = fields.String(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
    metadata = fields.Dict(required=True, allow_none=True)
    processing_time = fields.Float(required=True, allow_none=True)


class Refusal(Schema):
    """A call about an attempt that was refused."""

    refused_at = fields.AwareDateTime(required=True)
    code = fields.String(required=True)
    reason = fields.String(required=True)


class Attempt(Schema):
    """An ended attempt."""

    attempt = fields.Integer(required=True)
    worker_id = fields.String(required=True)
    key_id = fields.UUID(required=True)
    claimed_at = fields.AwareDateTime(required=True)
    acknowledged_at = fields.AwareDateTime(required=True, allow_none=True)
    ended_at = fields.AwareDateTime(required=True)
    how = fields.String(required=True, validate=validate.OneOf([str(end) for end in AttemptEnd]))
    why = fields.String(required=True, allow_none=True)
    refusals = fields.List(fields.Nested(Refusal()), required=True)


class WholeJob(Job):
    """A job with its ended attempts."""

    attempts = fields.List(fields.Nested(Attempt()), required=True)
    refusals = fields.List(
        fields.Nested(Refusal()), required=True, metadata={"description": "Of the attempt that is under way."}
    )


class ListQuery(Schema):
    """Which jobs, and which page of them."""

    class Meta:
        unknown = RAISE

    status = fields.String(load_default=None, validate=validate.OneOf(STATES))
    content_type = fields.String(
        load_default=None,
        validate=validate.Regexp(rf"^{CONTENT_TYPE_PATTERN}\Z", error="Is no content type."),
    )
    ingestion_task_id = Text(load_default=None, validate=validate.Length(1, 255))
    worker_id = Text(load_default=None, validate=validate.Length(1, 255))
    created_after = fields.AwareDateTime(format="iso", load_default=None)
    created_before = fields.AwareDateTime(format="iso", load_default=None)
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))
    cursor = Text(load_default=None, validate=validate.Length(1, 200))


class JobPage(Schema):
    """A page of jobs, newest first."""

    jobs = fields.List(fields.Nested(Job()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class StoredResult(Schema):
    """The result of a completed job."""

    content = fields.String(required=True, allow_none=True)
    metadata = fields.Dict(required=True, allow_none=True)
    processing_time = fields.Float(required=True, allow_none=True)
