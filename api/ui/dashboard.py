"""The dashboard's routes that belong to no resource: sign in and out, the overview, its plots, the sweeps."""

import time
from typing import Any

import orjson
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, NotFound

from api.http.access import caller, runtime, seen
from api.http.body import single
from api.http.problems import DETAILS, status_of

# Each adds its routes to `ui`.
from api.ui import batches, jobs, keys, outcomes, static_files, workers  # noqa: F401
from api.ui.blueprint import ui
from api.ui.forms import read_form
from api.ui.render import page
from api.ui.session import NotSignedIn, go, session, sign_in, sign_out, signed_in, to_sign_in
from bridge.blobs.quotas import bytes_of
from bridge.errors import BridgeError, Forbidden, Invalid, TooMany, Unauthorized
from bridge.insight import gauges, history
from bridge.insight.overview import Overview, overview
from bridge.sweeps import is_late

SHARED_SECONDS = 2.0  # a page that updates itself asks every 5 s
MOST_KEPT = 100  # tenants


def register(app: Flask) -> None:
    """Add the dashboard at /ui, and redirect browsers there from `/`."""
    app.register_blueprint(ui)
    app.add_url_rule("/", "lead_to_ui", _lead, methods=["GET"])


def _lead() -> Response:
    """Redirect a browser to the dashboard; answer any other client with 404."""
    if "text/html" not in request.headers.get("Accept", ""):
        raise NotFound
    return go("/ui/")


@ui.errorhandler(NotSignedIn)
def _sign_in_first(_: NotSignedIn) -> Response:
    return to_sign_in()


@ui.errorhandler(BridgeError)
def _refused(error: BridgeError) -> Response:
    status = status_of(error)
    response = page("error", status, code=status, detail=error.detail)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


@ui.errorhandler(HTTPException)
def _http(error: HTTPException) -> Response:
    status = error.code or 500
    return page("error", status, code=status, detail=DETAILS.get(status) or error.description)


@ui.route("/static/<name>", methods=["GET"])
def show_static(name: str) -> Response:
    """Send a script or a style sheet."""
    return static_files.serve(name)


@ui.route("/login", methods=["GET"])
def show_sign_in() -> Response:
    """Show the form that asks for a key."""
    return page("login", refused=None)


@ui.route("/login", methods=["POST"])
def do_sign_in() -> Response:
    """Begin a session with a key."""
    try:
        return sign_in(read_form().get("key", "").strip())
    except (Unauthorized, TooMany, Forbidden) as refusal:
        told = "This API key is not valid: mistyped, revoked or expired?"
        detail = told if isinstance(refusal, Unauthorized) else refusal.detail
        return page("login", status_of(refusal), refused=detail)


@ui.route("/logout", methods=["POST"])
@signed_in("read", "submit", "admin")
def do_sign_out() -> Response:
    """End the session."""
    return sign_out()


@ui.route("/", methods=["GET"])
@signed_in("read")
def show_overview() -> Response:
    """Show the overview."""
    return page("overview", now=_overview(caller().tenant), spans=list(history.SPANS))


def _overview(tenant: str) -> Overview:
    """Return what the page shows. Pages that update themselves share what one of them queried within SHARED_SECONDS."""
    kept: dict[str, tuple[float, Overview]] = current_app.extensions.setdefault("ui_overview", {})
    at, now = kept.get(tenant, (0.0, None))
    if now is not None and "HX-Request" in request.headers and time.monotonic() - at < SHARED_SECONDS:
        return now
    if len(kept) >= MOST_KEPT:
        kept.clear()
    now = overview(runtime(), seen(), tenant)
    kept[tenant] = (time.monotonic(), now)
    return now


@ui.route("/history", methods=["GET"])
@signed_in("read")
def show_history() -> Response:
    """Send the data of the plots in columns: seconds since 1970, then one list per line."""
    asked = single(request.args)
    span = history.SPANS.get(asked.get("span", "1h"))
    if span is None or set(asked) - {"span", "content_type"}:
        raise Invalid({"span": [f"Must be one of: {', '.join(history.SPANS)}."]})
    with runtime().engine.connect() as connection:
        rows = history.series(connection, caller().tenant, span, asked.get("content_type") or None)
    lines: dict[str, Any] = {"step": span.step, "at": [int(row.at.timestamp()) for row in rows]}
    for name in history.LINES:
        lines[name] = [None if (value := row._mapping[name]) is None else float(value) for row in rows]
    return Response(orjson.dumps(lines), content_type="application/json")


@ui.route("/sweeps", methods=["GET"])
@signed_in("read")
def show_sweeps() -> Response:
    """Show the sweeps and the state of the servers."""
    with runtime().engine.connect() as connection:
        sweeps = gauges.sweeps(connection)
        backlog = gauges.backlog(connection)
        version = connection.exec_driver_sql("SHOW server_version").scalar()
        uploaded = bytes_of(connection, caller().tenant)
    return page(
        "sweeps",
        sweeps=[(sweep, backlog.get(sweep.name), is_late(sweep.name, sweep.age)) for sweep in sweeps],
        postgres=version,
        uploaded=uploaded,
        limits=runtime().settings.limits,
        redis_away=runtime().mirror.breaker.away,
        auth=runtime().settings.auth,
        mine=session(),
    )
