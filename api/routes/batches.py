"""Batches as things of their own; they are created with the jobs (api/routes/jobs.py)."""

from typing import Any

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint
from api.http.documented_errors import gives
from api.schemas.jobs import BatchAnswer
from bridge.jobs.batches import show
from bridge.names import BATCHES_BASE

batches = Blueprint("batches", __name__, url_prefix=BATCHES_BASE, description="Where a batch is.")


@batches.route("/<job:batch_id>", methods=["GET"])
@scope("read", "submit")
@batches.response(200, BatchAnswer())
@gives(batches, 404)
def show_batch(batch_id: str) -> Any:
    """Return how many jobs of a batch are in which state."""
    return show(runtime(), caller().tenant, batch_id)._asdict()
