"""The pages of outcomes on their way, to the pipeline and to callback addresses, and the forms to send them again."""

from typing import Any
from urllib.parse import urlencode

import structlog
from flask import Response, request
from marshmallow import Schema

from api.http.access import caller, runtime
from api.http.body import single
from api.schemas.bulk import OUTCOME_STATES, ContinuationsQuery, ResendQuery
from api.schemas.webhooks import RESENDABLE, WEBHOOK_STATES, ResendWebhooks, WebhooksQuery
from api.ui.blueprint import ui
from api.ui.forms import loaded, read_form
from api.ui.render import page
from api.ui.session import go, signed_in
from bridge.outbox import outcomes, webhooks
from bridge.outbox.pipeline_queue import pipeline_queue, sentence, tells_all
from models.job_state import WebhookState

log = structlog.get_logger("api.ui")

PER_PAGE = 50


@ui.route("/continuations", methods=["GET"])
@signed_in("read")
def show_continuations() -> Response:
    """Show outcomes that are not yet handed over or confirmed, or those in one state."""
    settings = runtime().settings
    with runtime().engine.connect() as connection:
        lying = pipeline_queue(connection, settings.continuation_queue)
    return _page(
        "continuations",
        ContinuationsQuery(),
        outcomes.page,
        states=OUTCOME_STATES,
        recorded=settings.continuation_task is not None,
        task=settings.continuation_task if tells_all(caller().tenant) else None,
        queue=settings.continuation_queue,
        lying=None if lying is None else sentence(lying, caller().tenant),
        confirms=settings.continuation_confirm_seconds is not None,
    )


@ui.route("/webhooks", methods=["GET"])
@signed_in("read")
def show_webhooks() -> Response:
    """Show webhooks that are not delivered, or those in one state."""
    return _page("webhooks", WebhooksQuery(), webhooks.page, states=WEBHOOK_STATES, resendable=RESENDABLE)


def _page(name: str, schema: Schema, listed: Any, **facts: Any) -> Response:
    given = {name: value for name, value in single(request.args).items() if name in ("state", "cursor")}
    query = loaded(schema, {**given, "limit": str(PER_PAGE)})
    rows, cursor = listed(runtime(), caller().tenant, query["state"], PER_PAGE, query["cursor"])
    older = None if cursor is None else urlencode({"state": given.get("state", ""), "cursor": cursor})
    return page(name, rows=rows, state=query["state"], older=older, first=not given.get("cursor"), **facts)


@ui.route("/continuations/resend", methods=["POST"])
@signed_in("admin")
def do_resend() -> Response:
    """Send one outcome again, or all that are failing."""
    form = read_form()
    if form.get("state") == "failing":
        changed = outcomes.resend_failing(runtime(), caller().tenant)
    else:
        asked = loaded(ResendQuery(), {name: form.get(name, "") for name in ("job_id", "n")})
        changed = outcomes.resend(runtime(), caller().tenant, asked["job_id"], asked["n"])
    log.info("continuations_resent", changed=changed)
    return go("/ui/continuations", f"{changed} outcomes are sent again.")


@ui.route("/webhooks/resend", methods=["POST"])
@signed_in("admin")
def do_resend_webhooks() -> Response:
    """Send one webhook again, or all that are failing or failed."""
    form = read_form()
    asked = loaded(ResendWebhooks(), {name: form[name] for name in ("job_id", "n", "state") if form.get(name)})
    if asked["job_id"] is not None:
        changed = webhooks.resend(runtime(), caller().tenant, asked["job_id"], asked["n"])
    else:
        changed = webhooks.resend_all(runtime(), caller().tenant, WebhookState(asked["state"] or WebhookState.FAILED))
    log.info("webhooks_resent", changed=changed)
    return go("/ui/webhooks", f"{changed} webhooks are sent again.")
