"""Requests and answers of bulk changes, and of outcomes for the pipeline."""

from marshmallow import Schema, fields, validate

from api.schemas.jobs import Filters
from api.schemas.problem import STATES
from api.schemas.strict import JobId, QueryInteger
from bridge.bounded_schema import Strict
from models.job_state import OutcomeState

OUTCOME_STATES = [str(state) for state in OutcomeState]


class SteerQuery(Filters):
    """Which jobs; at least one filter must be named."""

    dry_run = fields.Boolean(
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        metadata={"description": "Count the matching jobs without changing any."},
    )


class BulkChange(Schema):
    """The effect of a change of many jobs."""

    matched = fields.Integer(
        required=True, metadata={"description": "Jobs that matched and were in a state that allows the change."}
    )
    changed = fields.Integer(required=True, metadata={"description": "Jobs that this request changed."})


class ContinuationsQuery(Strict):
    """Which outcomes, and which page of them."""

    state = fields.String(
        load_default=None,
        validate=validate.OneOf(OUTCOME_STATES),
        metadata={"description": "Omit for waiting and failing: all outcomes still to be sent or confirmed."},
    )
    limit = QueryInteger(load_default=50, validate=validate.Range(1, 500))
    cursor = fields.String(load_default=None, validate=validate.Length(1, 300))


class Continuation(Schema):
    """An outcome on its way to the pipeline."""

    job_id = fields.UUID(required=True)
    n = fields.Integer(required=True, metadata={"description": "The number of the outcome within the job, from 1."})
    status = fields.String(required=True, validate=validate.OneOf(STATES))
    state = fields.String(
        required=True,
        validate=validate.OneOf(OUTCOME_STATES),
        metadata={"description": "`failing`: sent or tried at least five times and still not confirmed."},
    )
    tries = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    next_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "Time of the next (re)send."}
    )
    sent_at = fields.AwareDateTime(required=True, allow_none=True)
    confirmed_at = fields.AwareDateTime(required=True, allow_none=True)
    last_error = fields.String(
        required=True, allow_none=True, metadata={"description": "The kind of the broker's last refusal."}
    )


class PipelineQueue(Schema):
    """The pipeline's queue as the bridge last saw it."""

    queue = fields.String(required=True)
    messages = fields.Integer(required=True, metadata={"description": "Messages that wait there, whoever sent them."})
    untouched_seconds = fields.Float(
        required=True, metadata={"description": "For how many seconds the same message has been the next one."}
    )
    looked_at = fields.AwareDateTime(required=True, metadata={"description": "When the bridge looked."})
    consumed = fields.Boolean(
        required=True, metadata={"description": "False: messages wait, and none was taken for a minute or longer."}
    )


class ContinuationPage(Schema):
    """A page of outcomes, newest first."""

    continuations = fields.List(fields.Nested(Continuation()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)
    pipeline_queue = fields.Nested(
        PipelineQueue(),
        required=True,
        allow_none=True,
        metadata={"description": "Null until the bridge has looked, and for keys of other tenants than `default`."},
    )


class ResendQuery(Strict):
    """Which outcomes to send again: a job's, or all that are failing."""

    job_id = JobId(load_default=None)
    n = QueryInteger(
        load_default=None,
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "With `job_id`: the number of the outcome; omit for the latest."},
    )
    state = fields.String(load_default=None, validate=validate.OneOf([str(OutcomeState.FAILING)]))


class Resent(Schema):
    """How many outcomes or webhooks are sent again."""

    changed = fields.Integer(required=True)
