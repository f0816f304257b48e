"""Resumable uploads by the tus protocol: sources of producers, results of workers."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import structlog
from flask import request
from sqlalchemy import Row
from werkzeug.exceptions import BadRequest

from api.http import tus
from api.http.access import caller, limits, runtime, scope
from api.http.body import Blueprint, header_text, no_body
from api.http.documented_errors import gives
from api.routes.work import TOKEN
from api.schemas.uploads import Upload
from bridge.blobs.append_to_upload import Checksum, Cut, append
from bridge.blobs.uploads import Announced, announce, find_upload, give_up
from bridge.errors import Conflict, Forbidden, Invalid, Unavailable
from bridge.jobs.upload_lease import sign_of_life
from bridge.names import UPLOADS_BASE

log = structlog.get_logger("api")
uploads = Blueprint("uploads", __name__, url_prefix=UPLOADS_BASE, description="Resumable uploads (tus 1.0).")
uploads.after_request(tus.say_version)


def _header(name: str, meaning: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string"}, "description": meaning, "required": False}


RESUMABLE = _header("Tus-Resumable", "1.0.0.")
LENGTH = _header("Upload-Length", "The length of the file in bytes.")
METADATA = _header(
    "Upload-Metadata", "Pairs of a key and a Base64 value: `filename`, `filetype`; for a worker's upload, `job_id`."
)
OFFSET = _header("Upload-Offset", "How many bytes have been received.")
CHECKSUM = _header("Upload-Checksum", "sha1, sha256 or sha512, a space, and the body's hash in Base64.")

OF_A_PIECE = (400, 404, 408, 409, 412, 413, 415, 460)  # the errors of a route that takes one


def _piece(*, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {tus.BYTES: {"schema": {"type": "string", "format": "binary"}}}}


@uploads.route("/", methods=["POST"])
@scope("submit", "work")
@uploads.response(201, Upload())
@gives(
    uploads, *OF_A_PIECE, parameters=[RESUMABLE, LENGTH, METADATA, CHECKSUM, TOKEN], requestBody=_piece(required=False)
)
def create_upload() -> Any:
    """Announce an upload, optionally with its first bytes. A worker's upload names the job that it holds."""
    tus.check_version()
    token = header_text("X-Lease-Token", 100)
    sent = bool(request.content_length) or "Transfer-Encoding" in request.headers
    length = tus.number("Upload-Length")
    raw, values = tus.metadata()
    checked = tus.checksum()
    if sent:
        tus.check_body(length)
    said = Announced(length, tus.file_name(values), tus.media_type(values), raw)
    if "job_id" in values:
        if not caller().may("work"):
            raise Forbidden("This key lacks the scope work, which an upload for a job needs.")
        attempt = sign_of_life(runtime(), caller(), values["job_id"], token)
        said = said._replace(job_id=attempt.job_id, attempt=attempt.attempt)
    elif not caller().may("submit"):
        why = "A key with only the scope work must name the job it holds: job_id, and its lease token in X-Lease-Token."
        raise Invalid({"Upload-Metadata": [why]})
    upload = announce(runtime(), caller(), said)
    log.info("upload_created", upload_id=str(upload.id), length=length)
    if sent:
        upload = _receive(upload, token, checked)
    return _view(upload), 201, {"Location": f"{UPLOADS_BASE}/{upload.id}", **tus.state(upload)}


@uploads.route("/<upload_id>", methods=["GET"])
@scope("submit", "work")
@uploads.response(200, Upload())
@gives(uploads, 404, 412, parameters=[RESUMABLE])
def show_upload(upload_id: str) -> Any:
    """Return how far an upload has come; HEAD returns it in headers."""
    if request.method == "HEAD":
        tus.check_version()
    upload = find_upload(runtime(), caller(), upload_id)
    return _view(upload), 200, tus.state(upload)


@uploads.route("/<upload_id>", methods=["PATCH"])
@scope("submit", "work")
@uploads.response(204)
@gives(uploads, *OF_A_PIECE, parameters=[RESUMABLE, OFFSET, CHECKSUM, TOKEN], requestBody=_piece(required=True))
def append_to_upload(upload_id: str) -> Any:
    """Append bytes to an upload, from its current end."""
    tus.check_version()
    token = header_text("X-Lease-Token", 100)
    upload = find_upload(runtime(), caller(), upload_id)
    tus.check_body(upload.length)
    if tus.number("Upload-Offset") != upload.received:
        raise Conflict(f"The upload has {upload.received} bytes: continue from there.", code="wrong_offset")
    tus.check_body(upload.length - upload.received)
    checked = tus.checksum()
    if upload.received < upload.length:
        upload = _receive(upload, token, checked)
    return "", 204, tus.state(upload)


@uploads.route("/<upload_id>", methods=["DELETE"])
@scope("submit", "work")
@uploads.response(204)
@gives(uploads, 404, 412, body=True, parameters=[RESUMABLE])
def delete_upload(upload_id: str) -> Any:
    """Delete an upload, finished or not, with the bytes received so far."""
    tus.check_version()
    no_body(request)
    give_up(runtime(), caller(), upload_id)
    return "", 204


def _receive(upload: Row[Any], token: str | None, checked: Checksum | None) -> Row[Any]:
    """Store the body. What the process holds meanwhile is bounded by api/http/tus.py and bridge/admission/limits.py.

    Raises TooMany, 400, and what `append` and `sign_of_life` raise.
    """
    arriving: Iterator[bytes] = tus.pieces(request)
    if upload.job_id is not None:
        sign = partial(sign_of_life, runtime(), caller(), str(upload.job_id), token, upload.attempt)
        arriving = tus.lively(arriving, sign, sign().every)
    with limits().arriving.begin(caller()):
        try:
            turn = partial(limits().storing.taken, caller().whose, 1)
            return append(runtime(), upload, arriving, checksum=checked, turn=turn)
        except Cut as cut:
            log.info("upload_cut", upload_id=str(upload.id), why=str(cut))
            if isinstance(cut, tus.Stopping):
                if request.method == "POST":  # the client learns of the upload, and goes on with it
                    return find_upload(runtime(), caller(), str(upload.id))
                raise Unavailable("This process stops; ask for the offset, and continue from there.") from None
            raise BadRequest("The body is broken: it ended early. The bytes that came are stored.") from None


def _view(upload: Row[Any]) -> dict[str, Any]:
    """Return an api.schemas.uploads.Upload."""
    told = {name: getattr(upload, name) for name in ("length", "received", "name", "media_type", "created_at")}
    sha256 = None if upload.sha256 is None else bytes(upload.sha256).hex()
    return {"upload_id": upload.id, **told, "sha256": sha256, "expires_at": upload.expires_at}
