"""Requests and answers about webhooks."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range

from api.schemas.bulk import ResendQuery
from api.schemas.problem import STATES
from api.schemas.strict import QueryInteger
from bridge.bounded_schema import Strict, member, optional
from models.job_state import WebhookState

WEBHOOK_STATES = [str(state) for state in WebhookState]
RESENDABLE = [str(WebhookState.FAILING), str(WebhookState.FAILED)]


class WebhooksQuery(Strict):
    """Which webhooks, and which page of them."""

    state = optional(fields.String, "Omit for all that are not delivered.", validate=OneOf(WEBHOOK_STATES))
    limit = QueryInteger(load_default=50, validate=Range(1, 500))
    cursor = fields.String(load_default=None, validate=Length(1, 300))


class Webhook(Schema):
    """An outcome on its way to a receiver."""

    job_id = fields.UUID(required=True)
    n = member(fields.Integer, "The number of the outcome; 0: the end of the batch.")
    status = fields.String(required=True, validate=OneOf(STATES))
    receiver = member(fields.String, "Host and port; the rest of the address may hold a secret.")
    state = member(
        fields.String, "`failing`: tried at least five times; `failed`: given up.", validate=OneOf(WEBHOOK_STATES)
    )
    tries = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    next_at = fields.AwareDateTime(required=True, allow_none=True)
    delivered_at = fields.AwareDateTime(required=True, allow_none=True)
    last_error = fields.String(required=True, allow_none=True)
    response_status = fields.Integer(required=True, allow_none=True)
    response_excerpt = member(fields.String, "The first 300 characters of the last answer.", null=True)


class WebhookPage(Schema):
    """A page of webhooks, newest first."""

    webhooks = fields.List(fields.Nested(Webhook()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class ResendWebhooks(ResendQuery):
    """Which webhooks to send again: a job's, or all that are failing or failed."""

    state = fields.String(load_default=None, validate=OneOf(RESENDABLE))
