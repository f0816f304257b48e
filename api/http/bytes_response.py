"""A file as an answer: whole, or the range of it that was asked for."""

import base64
import errno
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from flask import Response, request
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import ContentRange

from api.http.byte_range import asked_range, still_the_same
from bridge.blobs.content import pieces
from bridge.errors import NotFound, Unavailable
from bridge.runtime import Runtime


def bytes_response(size: int, etag: str, modified: float, body: Callable[[range], Iterable[bytes]]) -> Response:
    """The bytes of a file of this size; `body` makes those of a range. Raises 416."""
    asked = None
    if still_the_same(request.headers.get("If-Range"), etag, modified):
        asked = asked_range(request.headers.get("Range"), size)
    served = range(size) if asked is None else asked
    response = Response(body(served), mimetype="application/octet-stream", direct_passthrough=True)
    response.content_length = len(served)
    if asked is not None:
        response.status_code = 206
        response.content_range = ContentRange("bytes", asked.start, asked.stop, size)
    response.accept_ranges = "bytes"
    response.last_modified = datetime.fromtimestamp(int(modified), UTC)
    response.set_etag(etag)
    return response


def upload_response(runtime: Runtime, upload: Row[Any], name: str) -> Response:
    """An upload, under the name that it was sent with, else this one, with its digest (RFC 9530)."""
    sha256 = bytes(upload.sha256)

    def body(served: range) -> Iterator[bytes]:
        left = len(served)
        try:
            for piece in pieces(runtime, upload.id, served):
                left -= len(piece)
                yield piece
        except (NotFound, Unavailable, SQLAlchemyError):
            raise cut_short("the store does not answer") from None
        if left:
            raise cut_short("a part of the file is gone from the store")

    response = bytes_response(upload.length, sha256.hex(), upload.created_at.timestamp(), body)
    response.headers["Content-Disposition"] = attachment(upload.name or name)
    response.headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(sha256).decode()}:"
    response.make_conditional(request.environ)
    return response


def attachment(name: str) -> str:
    """Content-Disposition for a file's name, whatever stands in it (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def cut_short(why: str) -> BrokenPipeError:
    """Ends an answer before its promised length: gunicorn takes it for a lost client, and closes the connection.

    On one that stayed open the client would wait for the rest, or take its next answer for it.
    """
    return BrokenPipeError(errno.EPIPE, why)
