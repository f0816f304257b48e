"""The page of outcomes on their way to the pipeline, and the form to send them again."""

from urllib.parse import urlencode

import structlog
from flask import Response, request

from api.http.access import caller, runtime
from api.http.body import single
from api.schemas.bulk import OUTCOME_STATES, ContinuationsQuery, ResendQuery
from api.ui.blueprint import ui
from api.ui.forms import loaded, read_form
from api.ui.render import page
from api.ui.session import go, signed_in
from bridge.outbox import outcomes
from bridge.outbox.pipeline_queue import pipeline_queue, sentence, tells_all

log = structlog.get_logger("api.ui")

PER_PAGE = 50


@ui.route("/continuations", methods=["GET"])
@signed_in("read")
def show_continuations() -> Response:
    """Show outcomes that are not yet handed over or confirmed, or those in one state."""
    given = {name: value for name, value in single(request.args).items() if name in ("state", "cursor")}
    query = loaded(ContinuationsQuery(), {**given, "limit": str(PER_PAGE)})
    rows, cursor = outcomes.page(runtime(), caller().tenant, query["state"], PER_PAGE, query["cursor"])
    settings = runtime().settings
    with runtime().engine.connect() as connection:
        lying = pipeline_queue(connection, settings.continuation_queue)
    return page(
        "continuations",
        rows=rows,
        state=query["state"],
        states=OUTCOME_STATES,
        older=None if cursor is None else urlencode({"state": given.get("state", ""), "cursor": cursor}),
        recorded=settings.continuation_task is not None,
        task=settings.continuation_task if tells_all(caller().tenant) else None,
        queue=settings.continuation_queue,
        lying=None if lying is None else sentence(lying, caller().tenant),
        confirms=settings.continuation_confirm_seconds is not None,
        first=not given.get("cursor"),
    )


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
