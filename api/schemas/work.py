"""Requests and answers of workers."""

from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import And, Equal, Length, OneOf, Range, Regexp

from api.schemas.facts import BodyFacts, QueryFacts
from api.schemas.job_logs import UploadedCheckpoint
from api.schemas.problem import PRIORITIES, STATES, Problem
from api.schemas.strict import QueryInteger, QueryNumber, StrictBoolean, StrictFloat
from bridge.bounded_schema import BoundedList, Lenient, member, optional
from bridge.jobs.fields import JsonObject, StrictInteger
from bridge.jobs.result_files import LONGEST_NAME, MOST_ARTIFACTS, NAME_RULE, is_name
from bridge.sparse_schema import Sparse

MEDIA_TYPE = r"^[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}\Z"


class PollQuery(QueryFacts):
    """The query of a poll."""

    worker_id = fields.String(required=True, validate=Length(1, 255))
    content_types = fields.String(
        required=True, metadata={"description": "1 to 32 content types, comma-separated.", "example": "audio,video"}
    )
    max_jobs = QueryInteger(load_default=1, validate=Range(1, 100))
    wait = optional(
        QueryNumber,
        "Seconds to wait for a first job. Default: 10, or 0 while this worker holds a job.",
        validate=Range(0, 60),
    )
    lease = optional(
        QueryInteger,
        "Seconds without a sign of life before the job is taken back. Default: its deadline.",
        validate=Range(10, 3600),
    )
    slots_busy = optional(QueryInteger, "Jobs the worker is processing; shown to operators.", validate=Range(0, 10000))
    slots_free = optional(
        QueryInteger,
        "Further jobs the worker could take now; shown to operators and used for estimates.",
        validate=Range(0, 10000),
    )
    claim_id = optional(
        fields.String,
        "Identifies the claim: a poll that repeats it gets the same jobs, unless acknowledged.",
        validate=Regexp(r"^[A-Za-z0-9_-]{1,64}\Z", error="Must be 1 to 64 of A-Z a-z 0-9 _ and -."),
    )


class NextQuery(PollQuery):
    """The query of a result that also polls."""

    next = fields.String(
        validate=Equal("true", error="Must be true."),
        metadata={
            "description": "With `true`, the answer to an accepted result has `next`, the answer to a poll with the"
            " other parameters; without it they are ignored."
        },
    )


class ClaimNamed(Lenient):
    """A claim of a job by its ID."""

    worker_id = fields.String(required=True, validate=Length(1, 255))
    lease = optional(
        StrictInteger,
        "Seconds without a sign of life before the job is taken back. Default: its deadline.",
        validate=Range(10, 3600),
    )
    claim_id = optional(
        fields.String,
        "Identifies the claim: a request that repeats it gets the same answer, unless acknowledged.",
        validate=Regexp(r"^[A-Za-z0-9_-]{1,64}\Z", error="Must be 1 to 64 of A-Z a-z 0-9 _ and -."),
    )


class ClaimedJob(Schema):
    """A claimed job, as its worker gets it."""

    job_id = fields.UUID(required=True)
    source_file_url = fields.String(required=True)
    source_name = member(fields.String, "File name without directory; bytes that are not UTF-8 are replaced.")
    source_size = member(fields.Integer, "Size in bytes when the job was created; null if not recorded.", null=True)
    source_sha256 = member(
        fields.String, "In hex: that of an upload, or as the producer declared it; null: unknown.", null=True
    )
    source_media_type = member(fields.String, "Guessed from the file name; application/octet-stream if unknown.")
    content_type = fields.String(required=True)
    task_options = fields.Dict(required=True)
    checkpoint = member(fields.String, "The last one of an earlier attempt; null: none, or it was uploaded.", null=True)
    checkpoint_upload = member(
        fields.Nested,
        "The last one of an earlier attempt where it was uploaded; else null.",
        UploadedCheckpoint(),
        null=True,
    )
    attempt = fields.Integer(required=True)
    retry_count = fields.Integer(required=True)
    priority = fields.String(required=True, validate=OneOf(PRIORITIES))
    timeout_at = member(fields.AwareDateTime, "The deadline of this attempt.")
    lease_token = fields.String(required=True)
    lease_expires_at = fields.AwareDateTime(required=True)
    ack_by = member(fields.AwareDateTime, "The lease ends at this time unless a heartbeat renews it.")
    traceparent = member(
        fields.String, "The trace in which the job was created (W3C Trace Context); null if there is none.", null=True
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


class NamedArtifact(Lenient):
    """A file that is part of the result."""

    name = member(fields.String, NAME_RULE, validate=And(Length(1, LONGEST_NAME), _artifact_name))
    upload = fields.String(
        required=True, metadata={"format": "uuid", "description": "A finished upload of the attempt."}
    )
    media_type = fields.String(load_default=None, validate=Regexp(MEDIA_TYPE))


class Result(Lenient, Sparse):
    """The result of an attempt. Unknown fields are ignored."""

    success = StrictBoolean(required=True)
    content = fields.String(load_default=None)
    metadata = JsonObject(load_default=None)
    error_message = fields.String(load_default=None)
    processing_time = optional(StrictFloat, "In seconds.", validate=Range(min=0))
    result_upload = fields.String(
        load_default=None,
        metadata={"format": "uuid", "description": "Instead of content: a finished upload of the attempt, in UTF-8."},
    )
    artifacts = BoundedList(fields.Nested(NamedArtifact()), most=MOST_ARTIFACTS, least=0, load_default=None)
    retryable = StrictBoolean(load_default=True, allow_none=True)
    lease_token = fields.String(load_default=None)


class ResultAnswer(Schema):
    """The answer to a result."""

    status = fields.String(required=True, validate=OneOf(STATES))
    ingestion_continued = member(fields.Boolean, "Whether a continuation is durably recorded.")
    next = fields.Nested(
        PollAnswer(),
        allow_none=True,
        metadata={"description": "With next=true: the answer to the poll; null if it was refused."},
    )
    next_problem = fields.Nested(Problem(), metadata={"description": "Why the poll was refused."})


class Heartbeat(BodyFacts):
    """A sign of life."""

    lease_token = fields.String(load_default=None)
    progress = StrictFloat(load_default=None, validate=Range(0, 1))
    message = fields.String(load_default=None, validate=Length(max=500))


class Progress(Lenient):
    """A sign of life of an existing client."""

    percentage = StrictFloat(required=True, validate=Range(0, 100))
    message = fields.String(load_default=None, validate=Length(max=500))


class HeartbeatAnswer(Schema):
    """The lease as it is stored."""

    status = fields.String(required=True, validate=OneOf(STATES))
    lease_expires_at = fields.AwareDateTime(required=True, allow_none=True)
    cancel_requested = fields.Boolean(required=True)
    drain = member(fields.Boolean, "Whether an operator drains the worker: finish this job, then end.")


class Release(Lenient):
    """A worker gives its job back."""

    lease_token = fields.String(load_default=None)
