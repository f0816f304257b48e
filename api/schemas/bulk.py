"""Requests and answers of bulk changes, and of outcomes for the pipeline."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range

from api.schemas.jobs import Filters
from api.schemas.problem import STATES
from api.schemas.strict import JobId, QueryInteger
from bridge.bounded_schema import Strict, member, optional
from models.job_state import OutcomeState

OUTCOME_STATES = [str(state) for state in OutcomeState]


class SteerQuery(Filters):
    """Which jobs; at least one filter must be named."""

    dry_run = optional(
        fields.Boolean,
        "Count the matching jobs without changing any.",
        load_default=False,
        truthy={"true"},
        falsy={"false"},
    )


class BulkChange(Schema):
    """The effect of a change of many jobs."""

    matched = member(fields.Integer, "Jobs that matched and were in a state that allows the change.")
    changed = member(fields.Integer, "Jobs that this request changed.")


class ContinuationsQuery(Strict):
    """Which outcomes, and which page of them."""

    state = optional(
        fields.String,
        "Omit for waiting and failing: all outcomes still to be sent or confirmed.",
        validate=OneOf(OUTCOME_STATES),
    )
    limit = QueryInteger(load_default=50, validate=Range(1, 500))
    cursor = fields.String(load_default=None, validate=Length(1, 300))


class Continuation(Schema):
    """An outcome on its way to the pipeline."""

    job_id = fields.UUID(required=True)
    n = member(fields.Integer, "The number of the outcome within the job, from 1.")
    status = fields.String(required=True, validate=OneOf(STATES))
    state = member(
        fields.String,
        "`failing`: sent or tried at least five times and still not confirmed.",
        validate=OneOf(OUTCOME_STATES),
    )
    tries = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    next_at = member(fields.AwareDateTime, "Time of the next (re)send.", null=True)
    sent_at = fields.AwareDateTime(required=True, allow_none=True)
    confirmed_at = fields.AwareDateTime(required=True, allow_none=True)
    last_error = member(fields.String, "The kind of the broker's last refusal.", null=True)


class PipelineQueue(Schema):
    """The pipeline's queue as the bridge last saw it."""

    queue = fields.String(required=True)
    messages = member(fields.Integer, "Messages that wait there, whoever sent them.")
    untouched_seconds = member(fields.Float, "For how many seconds the same message has been the next one.")
    looked_at = member(fields.AwareDateTime, "When the bridge looked.")
    consumed = member(fields.Boolean, "False: messages wait, and none was taken for a minute or longer.")


class ContinuationPage(Schema):
    """A page of outcomes, newest first."""

    continuations = fields.List(fields.Nested(Continuation()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)
    pipeline_queue = member(
        fields.Nested,
        "Null until the bridge has looked, and for keys of other tenants than `default`.",
        PipelineQueue(),
        null=True,
    )


class ResendQuery(Strict):
    """Which outcomes to send again: a job's, or all that are failing."""

    job_id = JobId(load_default=None)
    n = optional(
        QueryInteger, "With `job_id`: the number of the outcome; omit for the latest.", validate=Range(0, 2**31 - 1)
    )
    state = fields.String(load_default=None, validate=OneOf([str(OutcomeState.FAILING)]))


class Resent(Schema):
    """How many outcomes or webhooks are sent again."""

    changed = fields.Integer(required=True)
