"""A job's result: its text and its artifacts."""

from typing import Any

from flask import Response, g, request

from api.http.access import caller, runtime, scope
from api.http.bytes_response import text_response, upload_response
from api.http.documented_errors import gives
from api.http.views import artifact_view, json_response, result_view
from api.routes.download import BY_STORE, BYTES
from api.routes.jobs import producers
from api.schemas import artifacts as schemas
from api.schemas.jobs import StoredResult
from bridge.jobs import artifacts, read
from models.job_state import JobState

JSON, PLAIN = "application/json", "text/plain"
TEXT = {"type": "string"}
ACCEPT = {
    "in": "header",
    "name": "Accept",
    "schema": {"type": "string"},
    "description": f"{PLAIN}: the text alone, or a Range of it; else JSON.",
}


@producers.route("/<job:job_id>/result", methods=["GET"])
@scope("read", "submit")
@producers.response(200, StoredResult())
@producers.alt_response(206, schema=TEXT, content_type=PLAIN, description="The range of the text that was asked for.")
@producers.alt_response(304, description="Not modified: the text still has the ETag of If-None-Match.")
@producers.alt_response(307, description=BY_STORE)
@gives(producers, 404, 409, 416, parameters=[ACCEPT])
def show_result(job_id: str) -> Any:
    """Return the result of a completed job; 409 not_ready while there is none."""
    stored = read.result(runtime(), caller().tenant, job_id)
    g.job_status = JobState.COMPLETED
    file = artifacts.text_file(runtime(), stored.id) if stored.content_size is None else None
    if request.accept_mimetypes.best_match([JSON, PLAIN]) == PLAIN:
        return text_response(runtime(), stored, file, by_store=True)
    return json_response(result_view(stored, file))


@producers.route("/<job:job_id>/artifacts", methods=["GET"])
@scope("read", "submit")
@producers.arguments(schemas.ArtifactsQuery(), location="query")
@producers.response(200, schemas.ArtifactPage())
@gives(producers, 404, 409)
def list_artifacts(query: dict[str, Any], job_id: str) -> Any:
    """List the artifacts of a completed job by their names; next_cursor opens the next page."""
    rows, cursor = artifacts.page(runtime(), caller().tenant, job_id, query["limit"], query["cursor"])
    g.job_status = JobState.COMPLETED
    return json_response({"items": [artifact_view(row) for row in rows], "next_cursor": cursor})


@producers.route("/<job:job_id>/artifacts/<artifact:name>", methods=["GET"])
@scope("read", "submit")
@producers.response(200, BYTES, content_type="application/octet-stream")
@producers.alt_response(
    206, schema=BYTES, content_type="application/octet-stream", description="The range that was asked for."
)
@producers.alt_response(304, description="Not modified: the file still has the ETag of If-None-Match.")
@producers.alt_response(307, description=BY_STORE)
@gives(producers, 404, 409, 416)
def download_artifact(job_id: str, name: str) -> Response:
    """Download an artifact, or a range of it; always as bytes to be saved, whatever its media type."""
    found = artifacts.artifact(runtime(), caller().tenant, job_id, name)
    g.job_status = JobState.COMPLETED
    return upload_response(runtime(), found, name, by_store=True)
