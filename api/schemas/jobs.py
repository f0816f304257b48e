"""Requests and answers of producers and readers."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range

from api.schemas.artifacts import ResultText
from api.schemas.insight import EndedAttempt, ShownKey
from api.schemas.problem import IS_CONTENT_TYPE, PRIORITIES, STATES
from api.schemas.strict import QueryInteger, StrictBoolean
from bridge.bounded_schema import BoundedList, Lenient, Strict, member, optional
from bridge.jobs.fields import CreateFields, Moment
from bridge.jobs.remote_sources import FETCHES
from bridge.outgoing.destination import LONGEST
from models.job_state import Asked


class CreateJob(CreateFields):
    """A new job."""


A_JOB = {
    "source_file_path": "/srv/files/report.pdf",
    "content_type": "document",
    "ingestion_task_id": "report-17",
    "task_options": {"language": "en"},
    "priority": "high",
}


class JobCreated(Schema):
    """The answer to a create."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=OneOf(STATES))
    created_at = fields.AwareDateTime(required=True)


class CreateBatch(Strict):
    """Up to 1000 new jobs: all of them, or none."""

    jobs = BoundedList(fields.Nested(CreateJob()), most=1000, required=True)
    outcome = optional(
        StrictBoolean,
        "Tell the pipeline once, by an outcome `batch_ended`, when all jobs have ended.",
        load_default=False,
    )
    callback_url = optional(
        fields.String,
        "With `outcome`: an https address that receives it too. Default: the key's.",
        validate=Length(1, LONGEST),
    )


class BatchCreated(Schema):
    """The answer to a batch, in the order of its jobs."""

    jobs = fields.List(fields.Nested(JobCreated()), required=True)
    batch_id = member(fields.UUID, "null: the replay of a batch of an earlier version.", null=True)


class BatchAnswer(Schema):
    """The progress of a batch."""

    batch_id = fields.UUID(required=True)
    ended = member(fields.Boolean, "Whether all its jobs have ended at this moment.")
    jobs = member(fields.Integer, "At its creation; some may have been deleted since.")
    by_status = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    created_at = fields.AwareDateTime(required=True)
    ended_at = fields.AwareDateTime(required=True, allow_none=True)


class StateAnswer(Schema):
    """The job's state after a change."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=OneOf(STATES))


class ShortJob(Schema):
    """The short view of a job."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=OneOf(STATES))
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
    """A job as listed: everything but its attempts, its result's content and any token."""

    job_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=OneOf(STATES))
    ingestion_task_id = fields.String(required=True)
    batch_id = fields.UUID(required=True, allow_none=True)
    source_file_path = fields.String(required=True)
    source_fetch = fields.String(required=True, validate=OneOf(FETCHES))
    content_type = fields.String(required=True)
    task_options = fields.Dict(required=True)
    priority = fields.String(required=True, validate=OneOf(PRIORITIES))
    worker_id = fields.String(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    retry_count = fields.Integer(required=True)
    max_retries = fields.Integer(required=True)
    timeout_seconds = fields.Integer(required=True)
    queue_timeout_seconds = fields.Integer(required=True)
    unserved_after_seconds = fields.Integer(required=True, allow_none=True)
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
    """A refused call about an attempt."""

    refused_at = fields.AwareDateTime(required=True)
    code = fields.String(required=True)
    reason = fields.String(required=True)


class Attempt(EndedAttempt):
    """An ended attempt."""

    key_id = fields.UUID(required=True)
    key = fields.Nested(ShownKey(), required=True, allow_none=True)
    acknowledged_at = fields.AwareDateTime(required=True, allow_none=True)
    refusals = fields.List(fields.Nested(Refusal()), required=True)


class Request(Schema):
    """A cancel or a retry that changed the job."""

    asked_at = fields.AwareDateTime(required=True)
    what = fields.String(required=True, validate=OneOf([str(asked) for asked in Asked]))
    key_id = member(fields.UUID, "The key that made the request.")
    key = fields.Nested(ShownKey(), required=True, allow_none=True)


class WholeJob(Job):
    """A job with its history."""

    result = member(fields.Nested, "The text of its result, or null while there is none.", ResultText(), null=True)
    artifacts = member(fields.Integer, "How many files its result has besides the text.")

    attempts = member(fields.List, "The 50 most recent ended attempts, oldest first.", fields.Nested(Attempt()))
    attempts_before = member(fields.Integer, "Pass it to get the next page; null on the last one.", null=True)
    refusals = member(fields.List, "Of the current attempt.", fields.Nested(Refusal()))
    requests = member(fields.List, "The 50 most recent ones, oldest first.", fields.Nested(Request()))
    requests_before = fields.Integer(required=True, allow_none=True)


class ShowQuery(Lenient):
    """Which part of a job's history."""

    attempts_before = QueryInteger(load_default=None, validate=Range(1, 2**31 - 1))
    requests_before = QueryInteger(load_default=None, validate=Range(1, 2**53))


class Filters(Strict):
    """Which jobs."""

    status = fields.String(load_default=None, validate=OneOf(STATES))
    content_type = fields.String(load_default=None, validate=IS_CONTENT_TYPE)
    ingestion_task_id = fields.String(load_default=None, validate=Length(1, 255))
    worker_id = fields.String(load_default=None, validate=Length(1, 255))
    created_after = Moment(format="iso", load_default=None)
    created_before = Moment(format="iso", load_default=None)


class ListQuery(Filters):
    """Which jobs, and which page of them."""

    limit = QueryInteger(load_default=50, validate=Range(1, 500))
    cursor = fields.String(load_default=None, validate=Length(1, 200))


class JobPage(Schema):
    """A page of jobs, newest first."""

    jobs = fields.List(fields.Nested(Job()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class StoredResult(Schema):
    """The result of a completed job."""

    content = fields.String(required=True, allow_none=True)
    metadata = fields.Dict(required=True, allow_none=True)
    processing_time = fields.Float(required=True, allow_none=True)
