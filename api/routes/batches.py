"""The route of batches; they are created with their jobs (api/routes/jobs.py)."""

from typing import Any

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint
from api.http.documented_errors import gives
from api.schemas.jobs import BatchAnswer
from bridge.jobs.batches import show
from bridge.names import BATCHES_BASE

batches = Blueprint("batches", __name__, url_prefix=BATCHES_BASE, description="Read the progress of a batch.")


@batches.route("/<job:batch_id>", methods=["GET"])
@scope("read", "submit")
@batches.response(200, BatchAnswer())
@gives(batches, 404)
def show_batch(batch_id: str) -> Any:
    """Return the number of a batch's jobs by state."""
    return show(runtime(), caller().tenant, batch_id)._asdict()
