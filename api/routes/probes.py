"""Probes and metrics: whether the bridge is alive and ready, and what it counts."""

from typing import Any

import redis
from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import NotFound as WerkzeugNotFound

from api.http.access import authenticate, runtime, seen
from api.http.body import Blueprint
from api.http.local_only import from_here
from api.http.metrics import render
from api.http.problems import problem
from api.http.views import json_response
from api.schemas.problem import Problem
from bridge.errors import Forbidden
from bridge.names import DEFAULT_TENANT
from bridge.redis_breaker import TAKE

health = Blueprint("health", __name__, description="For load balancers and Prometheus; no key is needed.")


needs_postgresql = health.alt_response(
    503, schema=Problem(), content_type="application/problem+json", description="PostgreSQL does not answer."
)


@health.route("/health", methods=["GET"])
@health.route("/healthz", methods=["GET"])
@health.response(200, {"type": "object", "properties": {"status": {"type": "string"}}})
def alive() -> Any:
    """Report that the process answers."""
    return json_response({"status": "ok"})


@health.route("/readyz", methods=["GET"])
@health.response(200, {"type": "object", "properties": {"status": {"type": "string"}, "redis": {"type": "string"}}})
@needs_postgresql
def ready() -> Any:
    """Report whether PostgreSQL answers, and whether Redis takes writes: without it the bridge works on, slower."""
    try:
        with runtime().engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        response = problem(503, "PostgreSQL does not answer.")
        response.headers["Retry-After"] = "2"
        return response
    try:
        whole = runtime().mirror.serves()
    except redis.RedisError as error:
        runtime().mirror.breaker.failed(TAKE, error)
        return json_response({"status": "degraded", "redis": "away"})
    return json_response({"status": "ok", "redis": "ok"} if whole else {"status": "degraded", "redis": "rebuilding"})


@health.route("/metrics", methods=["GET"])
@health.response(200, {"type": "string"}, content_type="text/plain")
@needs_postgresql
def metrics() -> Any:
    """Return Prometheus metrics: to this machine, or to a key of tenant `default` with scope read (BRIDGE_METRICS)."""
    mode = runtime().settings.metrics
    if mode == "off":
        raise WerkzeugNotFound
    if mode == "key" or (mode == "local" and not from_here()):
        who = authenticate()
        if who.tenant != DEFAULT_TENANT or not who.may("read"):
            raise Forbidden("Metrics are for keys of tenant default with scope read: they count every tenant's jobs.")
    return Response(render(runtime(), seen()), content_type=CONTENT_TYPE_LATEST)
