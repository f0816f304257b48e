"""The composition root of the API."""

import time
import uuid

from flask import Flask, Response, current_app, g, request
from flask_smorest import Api
from gevent.threadpool import ThreadPool

from api.fast_routes import FastRoutes
from api.http import docs_page, openapi, problems
from api.http.access import SECURITY
from api.http.counted import answered
from api.http.fixed_headers import SAFE
from api.http.incoming import end_request
from api.http.parts import Parts
from api.http.request_spans import end_with
from api.http.response_headers import begin_request
from api.http.sending import counted
from api.http.spelling import ArtifactName, JobId, WorkerId, as_spelled, exact, refuse_another_slash
from api.routes import download, logs_and_checkpoints, result_and_artifacts, workers  # noqa: F401  (they add their routes to the blueprints)
from api.routes.bulk import continuations
from api.routes.insight import operators
from api.routes.jobs import batches, producers
from api.routes.keys import keys
from api.routes.probes import health
from api.routes.results_at_once import results
from api.routes.uploads import uploads
from api.routes.webhooks import webhooks
from api.routes.work import work
from api.ui import dashboard
from bridge.admission.key_cache import KeyCache
from bridge.admission.limits import Limits
from bridge.jobs.expire_without_beat import ExpiryWithoutBeat
from bridge.long_poll.admit import LongPoll
from bridge.runtime import Runtime
from bridge.version import version

API_TITLE = "The bridge"
DESCRIPTION = "Hands heavy conversions to remote workers. docs/protocol.md describes how to write one."


class Documented(Api):
    """flask-smorest's Api without its catch-all error: api.http.documented_errors documents each error of a route."""

    DEFAULT_ERROR_RESPONSE_NAME = ""


def create_app(runtime: Runtime, reserved: Runtime) -> Flask:
    """Create the application. `reserved`: the same runtime with its own connections for claims, keys and limits.

    Starts the dispatcher, so it needs a gevent-patched process. Asks nothing of PostgreSQL and Redis: a process that
    cannot start ends all of them.
    """
    app = Flask("api", static_folder=None)
    exact(app.url_map)
    app.wsgi_app = as_spelled(app.wsgi_app)  # type: ignore[assignment, method-assign]
    app.config.update(
        MAX_CONTENT_LENGTH=runtime.settings.max_body_bytes + 1,  # api/http/body.py refuses what reaches it
        API_TITLE=API_TITLE,
        API_VERSION=version(),
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX=None,  # api/http/openapi.py serves the document
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "components": {"securitySchemes": SECURITY},
            "servers": [{"url": "/"}],
        },
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # task_options and metadata come back as they were sent
    limits = Limits(reserved)
    polls = LongPoll(runtime, reserved, limits)
    ring = None
    if runtime.settings.auth:
        ring = KeyCache(reserved.engine, polls.dispatcher.dismiss, runtime.settings.bootstrap_key)
        ring.keep()
    app.extensions["bridge"] = Parts(runtime, limits, polls, ring, ThreadPool(1))
    limits.keep()
    ExpiryWithoutBeat(reserved).keep()
    app.url_map.converters |= {"job": JobId, "worker": WorkerId, "artifact": ArtifactName}
    app.before_request(_begin)
    app.before_request(refuse_another_slash)
    app.after_request(_finish)
    app.after_request(counted)  # before _finish, which then finishes a 429 too
    app.teardown_request(end_request)
    api = Documented(app)
    for converter in (JobId, WorkerId, ArtifactName):
        api.register_converter(converter, lambda _: {"type": "string"})
    problems.register(app)  # after flask-smorest's own handler, which it replaces
    for blueprint in (producers, batches, work, results, operators, continuations, webhooks, keys, uploads, health):
        api.register_blueprint(blueprint)
    for unused in ("Error", "PaginationMetadata"):  # flask-smorest's own shapes, which no route here uses
        api.spec.components.schemas.pop(unused)
    if runtime.settings.ui:
        dashboard.register(app)
    if runtime.settings.fast_routes:
        app.wsgi_app = FastRoutes(app, app.wsgi_app)  # type: ignore[method-assign]
    if runtime.settings.docs:
        openapi.add_document(app, api)
        app.extensions["docs_policy"] = docs_page.add_docs_page(app, API_TITLE)
    return app


def _begin() -> None:
    g.began = time.monotonic()
    g.request_id = begin_request(request.environ)


def _finish(response: Response) -> Response:
    if request.path.startswith(docs_page.PATH) and "docs_policy" in current_app.extensions:
        response.headers["Content-Security-Policy"] = current_app.extensions["docs_policy"]
    for name, value in SAFE.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-ID"] = g.get("request_id") or uuid.uuid4().hex
    route = None if request.url_rule is None else request.url_rule.rule
    answered(request.method, route, response.status_code, g.get("began") or time.monotonic())
    end_with(response, g.pop("span", None), request.method, route)
    if "job_status" in g:
        response.headers["X-Job-Status"] = str(g.job_status)
    return response
