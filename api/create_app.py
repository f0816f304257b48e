"""The composition root of the API."""

import re
import uuid

from flask import Flask, Response, g, request
from flask_smorest import Api
from flask_swagger_ui import get_swaggerui_blueprint

from api import download, problems  # noqa: F401  (download adds its route to `workers`)
from api.access import SECURITY
from api.health import health
from api.operators import operators
from api.producers import producers
from api.workers import workers
from bridge.foreman import Foreman
from bridge.hub import Hub
from bridge.keys import KeyRing, ensure_bootstrap_key
from bridge.runtime import Runtime

REQUEST_ID = re.compile(r"[!-~]{1,128}\Z")
DESCRIPTION = "Hands heavy conversions to remote workers. docs/protocol.md tells how to write one."


def create_app(runtime: Runtime) -> Flask:
    """The application on a runtime. Starts the hub, so it needs a gevent-patched process."""
    app = Flask("api", static_folder=None)
    app.url_map.strict_slashes = False
    app.config.update(
        MAX_CONTENT_LENGTH=runtime.settings.max_body_bytes,
        API_TITLE="The bridge",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "components": {"securitySchemes": SECURITY},
            "servers": [{"url": "/"}],
        },
    )
    app.extensions["bridge"] = runtime
    app.extensions["keys"] = KeyRing(runtime.engine) if runtime.settings.auth else None
    app.extensions["hub"] = hub = Hub(runtime)
    app.extensions["foreman"] = Foreman(runtime, hub)
    app.before_request(_begin)
    app.after_request(_finish)
    api = Api(app)
    problems.register(app)  # after flask-smorest's own handler, which it replaces
    for blueprint in (producers, workers, operators, health):
        api.register_blueprint(blueprint)
    app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json", config={"validatorUrl": None}))
    if runtime.settings.auth and runtime.settings.bootstrap_key is not None:
        with runtime.engine.begin() as connection:
            ensure_bootstrap_key(connection, runtime.settings.bootstrap_key)
    return app


def _begin() -> None:
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if REQUEST_ID.match(sent) else uuid.uuid4().hex


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id") or uuid.uuid4().hex
    if "job_status" in g:
        response.headers["X-Job-Status"] = str(g.job_status)
    return response
