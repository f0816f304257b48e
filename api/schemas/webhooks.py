"""Requests and answers about webhooks."""

from marshmallow import Schema, fields, validate

from api.schemas.problem import STATES
from api.schemas.strict import JobId, QueryInteger
from bridge.bounded_schema import Strict
from models.job_state import WebhookState

WEBHOOK_STATES = [str(state) for state in WebhookState]
RESENDABLE = [str(WebhookState.FAILING), str(WebhookState.FAILED)]


class WebhooksQuery(Strict):
    """Which webhooks, and which page of them."""

    state = fields.String(
        load_default=None,
        validate=validate.OneOf(WEBHOOK_STATES),
        metadata={"description": "Omit for all that are not delivered."},
    )
    limit = QueryInteger(load_default=50, validate=validate.Range(1, 500))
    cursor = fields.String(load_default=None, validate=validate.Length(1, 300))


class Webhook(Schema):
    """An outcome on its way to a receiver."""

    job_id = fields.UUID(required=True)
    n = fields.Integer(required=True, metadata={"description": "The number of the outcome; 0: the end of the batch."})
    status = fields.String(required=True, validate=validate.OneOf(STATES))
    receiver = fields.String(
        required=True, metadata={"description": "Host and port; the rest of the address may hold a secret."}
    )
    state = fields.String(
        required=True,
        validate=validate.OneOf(WEBHOOK_STATES),
        metadata={"description": "`failing`: tried at least five times; `failed`: given up."},
    )
    tries = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    next_at = fields.AwareDateTime(required=True, allow_none=True)
    delivered_at = fields.AwareDateTime(required=True, allow_none=True)
    last_error = fields.String(required=True, allow_none=True)
    response_status = fields.Integer(required=True, allow_none=True)
    response_excerpt = fields.String(
        required=True, allow_none=True, metadata={"description": "The first 300 characters of the last answer."}
    )


class WebhookPage(Schema):
    """A page of webhooks, newest first."""

    webhooks = fields.List(fields.Nested(Webhook()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class ResendWebhooks(Strict):
    """Which webhooks to send again: a job's, or all that are failing or failed."""

    job_id = JobId(load_default=None)
    n = QueryInteger(
        load_default=None,
        validate=validate.Range(0, 2**31 - 1),
        metadata={"description": "With `job_id`: the number of the outcome; omit for the latest."},
    )
    state = fields.String(load_default=None, validate=validate.OneOf(RESENDABLE))
