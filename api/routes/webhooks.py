"""The routes of webhooks: list them and send them again."""

from typing import Any

import structlog
from flask import request

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, no_body
from api.http.documented_errors import gives
from api.schemas import webhooks as schemas
from api.schemas.bulk import Resent
from bridge.errors import Invalid
from bridge.names import WEBHOOKS_BASE
from bridge.outbox import webhooks as core
from models.job_state import WebhookState

log = structlog.get_logger("api")
webhooks = Blueprint(
    "webhooks", __name__, url_prefix=WEBHOOKS_BASE, description="List outcomes for callback addresses and resend them."
)


@webhooks.route("/", methods=["GET"])
@scope("read")
@webhooks.arguments(schemas.WebhooksQuery(), location="query")
@webhooks.response(200, schemas.WebhookPage())
@gives(webhooks)
def list_webhooks(query: dict[str, Any]) -> Any:
    """List webhooks that are not delivered, or those in the given state; newest first."""
    rows, cursor = core.page(runtime(), caller().tenant, query["state"], query["limit"], query["cursor"])
    return {"webhooks": rows, "next_cursor": cursor}


@webhooks.route("/resend", methods=["POST"])
@scope("admin")
@webhooks.arguments(schemas.ResendWebhooks(), location="query")
@webhooks.response(200, Resent())
@gives(webhooks, 404, body=True)
def resend_webhooks(query: dict[str, Any]) -> Any:
    """Send a job's webhook again, delivered or not, or all that are failing or failed. Its ID stays the same."""
    no_body(request)
    job_id, n, state = query["job_id"], query["n"], query["state"]
    if (job_id is None) == (state is None) or (n is not None and job_id is None):
        raise Invalid({"job_id": ["Name either job_id (with n, if it is not the latest) or state."]})
    tenant = caller().tenant
    if job_id is None:
        changed = core.resend_all(runtime(), tenant, WebhookState(state))
    else:
        changed = core.resend(runtime(), tenant, job_id, n)
    log.info("webhooks_resent", changed=changed)
    return {"changed": changed}
