"""The page of workers: what they poll for, hold, did and report; how to pause, drain, evict and resume them."""

import structlog
from flask import Response, request

from api.http.access import caller, runtime, seen
from api.http.body import single
from api.routes.workers import checked
from api.schemas.insight import DrainWorker, PauseWorker
from api.ui.blueprint import ui
from api.ui.forms import loaded, read_form
from api.ui.render import page
from api.ui.session import go, signed_in
from bridge.admission.keys import ids_of_tenant
from bridge.insight.explain import WAITING
from bridge.jobs.release import evict
from bridge.workers.pauses import pause, resume
from bridge.workers.roster import roster_of
from bridge.workers.track_record import ends_of_workers

log = structlog.get_logger("api.ui")

PER_PAGE = 50
DURATIONS = {"": "until it is resumed", "600": "10 minutes", "3600": "1 hour", "86400": "1 day"}


@ui.route("/workers", methods=["GET"])
@signed_in("read")
def show_workers() -> Response:
    """Show the workers that were seen within an hour, hold a job or are paused, the latest seen first."""
    known = roster_of(runtime(), seen(), caller().tenant)
    wanted = single(request.args).get("worker_id", "").strip()
    hands = [hand for hand in known.hands if wanted in hand.worker_id]
    with runtime().engine.connect() as connection:
        ends = ends_of_workers(connection, hands[:PER_PAGE])
    return page(
        "workers",
        hands=[(hand, ends.get((hand.key_id, hand.worker_id))) for hand in hands[:PER_PAGE]],
        more=max(0, len(hands) - PER_PAGE),
        wanted=wanted,
        redis=known.redis,
        waiting_seconds=WAITING.total_seconds(),
        durations=DURATIONS,
    )


@ui.route("/workers/pause", methods=["POST"])
@signed_in("admin")
def do_pause() -> Response:
    """Pause the worker: give it no jobs."""
    form = read_form()
    worker_id = checked(form.get("worker_id", ""))
    given: dict[str, object] = {"reason": form.get("reason", "").strip() or "Paused on the dashboard."}
    if seconds := form.get("seconds"):
        given["seconds"] = int(seconds) if seconds in DURATIONS else seconds
    asked = loaded(PauseWorker(), given)
    until = pause(runtime(), caller().tenant, worker_id, asked["reason"], asked["seconds"])
    log.info("worker_paused", worker_id=worker_id, seconds=asked["seconds"], reason=asked["reason"])
    end = "until it is resumed" if until is None else f"until {until:%Y-%m-%d %H:%M:%S} UTC"
    return go("/ui/workers", f"Worker {worker_id[:100]} is paused {end}.")


@ui.route("/workers/drain", methods=["POST"])
@signed_in("admin")
def do_drain() -> Response:
    """Drain the worker: let it finish what it holds and end."""
    worker_id = checked(read_form().get("worker_id", ""))
    asked = loaded(DrainWorker(), {"reason": "Drained on the dashboard."})
    until = pause(runtime(), caller().tenant, worker_id, asked["reason"], asked["seconds"], drain=True)
    log.info("worker_drained", worker_id=worker_id, seconds=asked["seconds"], reason=asked["reason"])
    return go("/ui/workers", f"Worker {worker_id[:100]} is asked to end, until {until:%Y-%m-%d %H:%M:%S} UTC.")


@ui.route("/workers/evict", methods=["POST"])
@signed_in("admin")
def do_evict() -> Response:
    """Return all jobs that a vanished worker holds to their queues."""
    worker_id = checked(read_form().get("worker_id", ""))
    with runtime().engine.connect() as connection:
        key_ids = ids_of_tenant(connection, caller().tenant)
    released = evict(runtime(), caller().tenant, [worker_id], key_ids).total()
    log.info("worker_evicted", worker_id=worker_id, released=released)
    return go("/ui/workers", f"Worker {worker_id[:100]} held {released} jobs; they are pending again.")


@ui.route("/workers/resume", methods=["POST"])
@signed_in("admin")
def do_resume() -> Response:
    """Give the worker jobs again."""
    worker_id = checked(read_form().get("worker_id", ""))
    resume(runtime(), caller().tenant, worker_id)
    log.info("worker_resumed", worker_id=worker_id)
    return go("/ui/workers", f"Worker {worker_id[:100]} is given jobs again.")
