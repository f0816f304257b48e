"""The pages of batches: all of them, and one with its jobs."""

from urllib.parse import urlencode

from flask import Response, request

from api.http.access import caller, runtime
from api.http.body import single
from api.schemas.problem import STATES
from api.ui.blueprint import ui
from api.ui.render import page
from api.ui.session import signed_in
from bridge.jobs import batch_lists, batches

BATCHES_PER_PAGE = 20  # each with up to a thousand jobs, which are counted
JOBS_PER_PAGE = 50


def _cursor() -> str | None:
    return single(request.args).get("cursor") or None


@ui.route("/batches", methods=["GET"])
@signed_in("read")
def show_batches() -> Response:
    """Show batches, newest first, each with its number of jobs by state."""
    cursor = _cursor()
    found, more = batch_lists.newest(runtime(), caller().tenant, BATCHES_PER_PAGE, cursor)
    older = None if more is None else urlencode({"cursor": more})
    return page("batches", batches=found, states=STATES, older=older, first=cursor is None)


@ui.route("/batches/<job:batch_id>", methods=["GET"])
@signed_in("read")
def show_batch(batch_id: str) -> Response:
    """Show a batch: its number of jobs by state, and its jobs in order."""
    cursor = _cursor()
    batch = batches.show(runtime(), caller().tenant, batch_id)
    jobs, more = batch_lists.jobs_of(runtime(), caller().tenant, batch.batch_id, JOBS_PER_PAGE, cursor)
    further = None if more is None else urlencode({"cursor": more})
    return page("batch", batch=batch, jobs=jobs, states=STATES, further=further, first=cursor is None)
