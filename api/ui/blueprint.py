"""What the dashboard's routes are added to."""

from flask import Blueprint

from api.http.parts import parts
from api.ui.render import protected
from bridge.workers.registry import WorkerRegistry

ui = Blueprint("ui", __name__, url_prefix="/ui")
ui.after_request(protected)


def seen() -> WorkerRegistry:
    """Return the registry of the workers that ask for jobs."""
    return parts().polls.pauses.seen
