"""The bare Flask-Smorest echo: the three hot routes with the same shapes, without a bridge behind them.

It shows what Flask, Flask-Smorest and marshmallow alone cost; bench/load_client runs against it unchanged, and
bench/lifecycles.py divides by it.
"""

import itertools
from typing import Any

from flask import Flask
from flask_smorest import Api, Blueprint
from marshmallow import EXCLUDE, Schema, fields

app = Flask(__name__)
app.config.update(API_TITLE="echo", API_VERSION="v1", OPENAPI_VERSION="3.1.0")
_api = Api(app)
_echo = Blueprint("echo", __name__, url_prefix="/api/v1/remote-jobs")
_numbers = itertools.count()


class Create(Schema):
    """A new job."""

    ingestion_task_id = fields.String(required=True)
    source_file_path = fields.String(required=True)
    content_type = fields.String(required=True)
    task_options = fields.Dict(load_default=dict)


class Created(Schema):
    """The answer to a create."""

    job_id = fields.String()
    status = fields.String()
    created_at = fields.String()


class PollQuery(Schema):
    """The query of a poll."""

    class Meta:
        unknown = EXCLUDE

    worker_id = fields.String(required=True)
    content_types = fields.String(required=True)
    wait = fields.Integer(load_default=0)


class Job(Schema):
    """A claimed job."""

    job_id = fields.String()
    source_file_url = fields.String()
    content_type = fields.String()
    task_options = fields.Dict()


class Polled(Job):
    """The answer to a poll."""

    jobs = fields.List(fields.Nested(Job()))


class Result(Schema):
    """The result of a job."""

    success = fields.Boolean(required=True)
    content = fields.String()
    metadata = fields.Dict()
    processing_time = fields.Float()


class Accepted(Schema):
    """The answer to a result."""

    status = fields.String()
    ingestion_continued = fields.Boolean()


def _job_id() -> str:
    return f"00000000-0000-7000-8000-{next(_numbers) % 10**12:012d}"


@_echo.route("/", methods=["POST"])
@_echo.arguments(Create())
@_echo.response(200, Created())
def create(job: dict[str, Any]) -> dict[str, Any]:
    """Answer like a create."""
    return {"job_id": _job_id(), "status": "pending", "created_at": "2026-01-01T00:00:00+00:00"}


@_echo.route("/poll", methods=["GET"])
@_echo.arguments(PollQuery(), location="query")
@_echo.response(200, Polled())
def poll(query: dict[str, Any]) -> dict[str, Any]:
    """Answer like a poll that found a job."""
    job = {"job_id": _job_id(), "source_file_url": "/", "content_type": "bench", "task_options": {"model": "base"}}
    return {**job, "jobs": [job]}


@_echo.route("/<job_id>/result", methods=["PUT"])
@_echo.arguments(Result())
@_echo.response(200, Accepted())
def result(result: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Answer like an accepted result."""
    return {"status": "completed", "ingestion_continued": False}


_api.register_blueprint(_echo)
