"""The page of webhooks: outcomes on their way to callback addresses, and the form to send them again."""

from urllib.parse import urlencode

import structlog
from flask import Response, request

from api.http.access import caller, runtime
from api.http.body import single
from api.schemas.webhooks import RESENDABLE, WEBHOOK_STATES, ResendWebhooks, WebhooksQuery
from api.ui.blueprint import ui
from api.ui.forms import loaded, read_form
from api.ui.render import page
from api.ui.session import go, signed_in
from bridge.outbox import webhooks
from models.job_state import WebhookState

log = structlog.get_logger("api.ui")

PER_PAGE = 50


@ui.route("/webhooks", methods=["GET"])
@signed_in("read")
def show_webhooks() -> Response:
    """Show webhooks that are not delivered, or those in one state."""
    given = {name: value for name, value in single(request.args).items() if name in ("state", "cursor")}
    query = loaded(WebhooksQuery(), {**given, "limit": str(PER_PAGE)})
    rows, cursor = webhooks.page(runtime(), caller().tenant, query["state"], PER_PAGE, query["cursor"])
    return page(
        "webhooks",
        rows=rows,
        state=query["state"],
        states=WEBHOOK_STATES,
        resendable=RESENDABLE,
        older=None if cursor is None else urlencode({"state": given.get("state", ""), "cursor": cursor}),
        first=not given.get("cursor"),
    )


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
