"""Requests and answers of workers."""

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from api.schemas.facts import BodyFacts, QueryFacts
from api.schemas.job_logs import UploadedCheckpoint
from api.schemas.problem import PRIORITIES, STATES, Problem
from api.schemas.strict import QueryInteger, QueryNumber, StrictBoolean, StrictFloat
from bridge.bounded_schema import BoundedList
from bridge.jobs.fields import JsonObject, StrictInteger
from bridge.jobs.result_files import LONGEST_NAME, MOST_ARTIFACTS, NAME_RULE, is_name
from bridge.sparse_schema import Sparse

MEDIA_TYPE = r"^[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}\Z"


class PollQuery(QueryFacts):
    """The query of a poll."""

    class Meta:
        unknown = EXCLUDE

    worker_id = fields.String(required=True, validate=validate.Length(1, 255))
    content_types = fields.String(
        required=True,
        metadata={"description": "1 to 32 content types, comma-separated.", "example": "audio,video"},
    )
    max_jobs = QueryInteger(load_default=1, validate=validate.Range(1, 100))
    wait = QueryNumber(
        load_default=None,
        validate=validate.Range(0, 60),
        metadata={"description": "Seconds to wait for a first job. Default: 10, or 0 while this worker holds a job."},
    )
    lease = QueryInteger(
        load_default=None,
        validate=validate.Range(10, 3600),
        metadata={"description": "Seconds without a sign of life before the job is taken back. Default: its deadline."},
    )
    slots_busy = QueryInteger(
        load_default=None,
        validate=validate.Range(0, 10000),
        metadata={"description": "Jobs the worker is processing; shown to operators."},
    )
    slots_free = QueryInteger(
        load_default=None,
        validate=validate.Range(0, 10000),
        metadata={"description": "Further jobs the worker could take now; shown to operators and used for estimates."},
    )
    claim_id = fields.String(
        load_default=None,
        validate=validate.Regexp(r"^[A-Za-z0-9_-]{1,64}\Z", error="Must be 1 to 64 of A-Z a-z 0-9 _ and -."),
        metadata={
            "description": "Identifies the claim: a poll that repeats it gets the same jobs, unless acknowledged.",
            "pattern": "^[A-Za-z0-9_-]{1,64}$",
        },
    )


class NextQuery(PollQuery):
    """The query of a result that also polls."""

    next = fields.String(
        validate=validate.Equal("true", error="Must be true."),
        metadata={
            "description": "With `true`, the answer to an accepted result has `next`, the answer to a poll with the"
            " other parameters; without it they are ignored."
        },
    )


class ClaimNamed(Schema):
    """A claim of a job by its ID."""

    class Meta:
        unknown = EXCLUDE

    worker_id = fields.String(required=True, validate=validate.Length(1, 255))
    lease = StrictInteger(
        load_default=None,
        allow_none=True,
        validate=validate.Range(10, 3600),
        metadata={"description": "Seconds without a sign of life before the job is taken back. Default: its deadline."},
    )
    claim_id = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Regexp(r"^[A-Za-z0-9_-]{1,64}\Z", error="Must be 1 to 64 of A-Z a-z 0-9 _ and -."),
        metadata={
            "description": "Identifies the claim: a request that repeats it gets the same answer, unless acknowledged.",
            "pattern": "^[A-Za-z0-9_-]{1,64}$",
        },
    )


class ClaimedJob(Schema):
    """A claimed job, as its worker gets it."""

    job_id = fields.UUID(required=True)
    source_file_url = fields.String(required=True)
    source_name = fields.String(
        required=True,
        metadata={"description": "File name without directory; bytes that are not UTF-8 are replaced."},
    )
    source_size = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "Size in bytes when the job was created; null if not recorded."},
    )
    source_sha256 = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "In hex: that of an upload, or as the producer declared it; null: unknown."},
    )
    source_media_type = fields.String(
        required=True,
        metadata={"description": "Guessed from the file name; application/octet-stream if unknown."},
    )
    content_type = fields.String(required=True)
    task_options = fields.Dict(required=True)
    checkpoint = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The last one of an earlier attempt; null: none, or it was uploaded."},
    )
    checkpoint_upload = fields.Nested(
        UploadedCheckpoint(),
        required=True,
        allow_none=True,
        metadata={"description": "The last one of an earlier attempt where it was uploaded; else null."},
    )
    attempt = fields.Integer(required=True)
    retry_count = fields.Integer(required=True)
    priority = fields.String(required=True, validate=validate.OneOf(PRIORITIES))
    timeout_at = fields.AwareDateTime(required=True, metadata={"description": "The deadline of this attempt."})
    lease_token = fields.String(required=True)
    lease_expires_at = fields.AwareDateTime(required=True)
    ack_by = fields.AwareDateTime(
        required=True, metadata={"description": "The lease ends at this time unless a heartbeat renews it."}
    )
    traceparent = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The trace in which the job was created (W3C Trace Context); null if there is none."},
    )


class PollAnswer(Schema):
    """The answer to a poll: the jobs, and the first job's fields again outside the list, null if there is none."""

    job_id = fields.UUID(required=True, allow_none=True)
    source_file_url = fields.String(required=True, allow_none=True)
    content_type = fields.String(required=True, allow_none=True)
    task_options = fields.Dict(required=True, allow_none=True)
    jobs = fields.List(fields.Nested(ClaimedJob()), required=True)


def _artifact_name(value: str) -> None:
    if not is_name(value):
        raise ValidationError(NAME_RULE)


class NamedArtifact(Schema):
    """A file that is part of the result."""

    class Meta:
        unknown = EXCLUDE

    name = fields.String(
        required=True,
        validate=validate.And(validate.Length(1, LONGEST_NAME), _artifact_name),
        metadata={"description": NAME_RULE},
    )
    upload = fields.String(
        required=True, metadata={"format": "uuid", "description": "A finished upload of the attempt."}
    )
    media_type = fields.String(load_default=None, allow_none=True, validate=validate.Regexp(MEDIA_TYPE))


class Result(Sparse):
    """The result of an attempt. Unknown fields are ignored."""

    class Meta:
        unknown = EXCLUDE

    success = StrictBoolean(required=True)
    content = fields.String(load_default=None, allow_none=True)
    metadata = JsonObject(load_default=None, allow_none=True)
    error_message = fields.String(load_default=None, allow_none=True)
    processing_time = StrictFloat(
        load_default=None, allow_none=True, validate=validate.Range(min=0), metadata={"description": "In seconds."}
    )
    result_upload = fields.String(
        load_default=None,
        allow_none=True,
        metadata={"format": "uuid", "description": "Instead of content: a finished upload of the attempt, in UTF-8."},
    )
    artifacts = BoundedList(
        fields.Nested(NamedArtifact()), most=MOST_ARTIFACTS, least=0, load_default=None, allow_none=True
    )
    retryable = StrictBoolean(load_default=True, allow_none=True)
    lease_token = fields.String(load_default=None, allow_none=True)


class ResultAnswer(Schema):
    """The answer to a result."""

    status = fields.String(required=True, validate=validate.OneOf(STATES))
    ingestion_continued = fields.Boolean(
        required=True, metadata={"description": "Whether a continuation is durably recorded."}
    )
    next = fields.Nested(
        PollAnswer(),
        allow_none=True,
        metadata={"description": "With next=true: the answer to the poll; null if it was refused."},
    )
    next_problem = fields.Nested(Problem(), metadata={"description": "Why the poll was refused."})


class Heartbeat(BodyFacts):
    """A sign of life."""

    class Meta:
        unknown = EXCLUDE

    lease_token = fields.String(load_default=None, allow_none=True)
    progress = StrictFloat(load_default=None, allow_none=True, validate=validate.Range(0, 1))
    message = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=500))


class Progress(Schema):
    """A sign of life of an existing client."""

    class Meta:
        unknown = EXCLUDE

    percentage = StrictFloat(required=True, validate=validate.Range(0, 100))
    message = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=500))


class HeartbeatAnswer(Schema):
    """The lease as it is stored."""

    status = fields.String(required=True, validate=validate.OneOf(STATES))
    lease_expires_at = fields.AwareDateTime(required=True, allow_none=True)
    cancel_requested = fields.Boolean(required=True)
    drain = fields.Boolean(
        required=True, metadata={"description": "Whether an operator drains the worker: finish this job, then end."}
    )


class Release(Schema):
    """A worker gives its job back."""

    class Meta:
        unknown = EXCLUDE

    lease_token = fields.String(load_default=None, allow_none=True)
