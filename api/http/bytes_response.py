"""A file as an answer: whole, or the range of it that was asked for."""

import base64
import errno
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

from flask import Response, request
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import ContentRange

from api.http.byte_range import asked_range, still_the_same
from api.http.send_file import CannotSend, Part, connection, sent_pieces
from api.http.sending import as_text
from bridge.blobs.content import link, parts, pieces
from bridge.blobs.store import store
from bridge.errors import NotFound, Unavailable
from bridge.jobs.documents import Document, Unread
from bridge.runtime import Runtime


def bytes_response(size: int, etag: str, modified: float, body: Callable[[range], Iterable[bytes]]) -> Response:
    """Return an answer with a file of this size, or the range asked for; `body` yields a range's bytes. Raises 416."""
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


def upload_response(runtime: Runtime, upload: Row[Any], name: str, *, by_store: bool = False) -> Response:
    """Return an upload as an answer with its digest (RFC 9530), under the name it was sent with, else under `name`.

    `by_store`: redirect to the store where the operator lets it send the bytes itself. Raises 416, Unavailable.
    """
    sha256, sock = bytes(upload.sha256), connection(request.environ)
    broken = (NotFound, Unavailable, SQLAlchemyError)

    def body(served: range) -> Iterator[bytes]:
        pieces = _upload_pieces(runtime, upload.id, served, sock)
        return in_full(
            pieces, served, broken, "the store does not answer", "a part of the file is missing in the store"
        )

    response = bytes_response(upload.length, sha256.hex(), upload.created_at.timestamp(), body)
    response.headers["Content-Disposition"] = attachment(upload.name or name)
    response.headers["Repr-Digest"] = repr_digest(sha256)
    response.make_conditional(request.environ)
    if by_store and request.method == "GET" and response.status_code in (200, 206):
        address = link(runtime, upload.id, upload.length)
        return response if address is None else _redirect(response, address)
    return response


def in_full(
    pieces: Iterable[tuple[int, bytes]], served: range, broken: tuple[type[Exception], ...], silent: str, short: str
) -> Iterator[bytes]:
    """Yield the pieces of a range, each given with the number of its bytes, and break off where they do not all come.

    `silent`: why, where one of `broken` is raised; `short`: where they end early.
    """
    left = len(served)
    try:
        for count, piece in pieces:
            left -= count
            yield piece
    except broken:
        raise cut_short(silent) from None
    if left:
        raise cut_short(short)


def _upload_pieces(runtime: Runtime, upload_id: UUID, served: range, sock: Any) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of an upload as file_pieces does, object by object. Raises NotFound too."""
    objects = store(runtime.settings)
    if sock is not None and served:
        held = parts(runtime, upload_id, served)
        try:
            yield from sent_pieces(
                sock, (Part(partial(objects.open, name), part) for name, part in held), runtime.sends
            )
            return
        except CannotSend:
            pass
    for piece in pieces(runtime, upload_id, served):
        yield len(piece), piece


def _redirect(response: Response, address: str) -> Response:
    """Return a redirect to the bytes, with the headers that the store lacks. Conditions and ranges were judged."""
    response.close()
    redirect = Response(status=307, mimetype="application/octet-stream")
    redirect.headers["Location"] = address
    for name in ("ETag", "Repr-Digest", "Content-Disposition", "Last-Modified"):
        redirect.headers[name] = response.headers[name]
    return redirect


def text_response(runtime: Runtime, stored: Row[Any], file: Row[Any] | None, *, by_store: bool = False) -> Response:
    """Return the text of a result (a row with read.RESULT), or a range of it. `file`: the upload that holds it, if any.

    `by_store` as above. Raises 416, Unavailable, and NotFound where the result has no text.
    """
    name = f"{stored.id}.txt"
    if file is not None:
        response = upload_response(runtime, file, name, by_store=by_store)
    elif stored.content_size is None:
        raise NotFound("The result has no text.", job_status="completed")
    else:
        response = bytes_response(
            stored.content_size,
            f"result-{stored.id}",  # it never changes
            stored.completed_at.timestamp(),
            lambda served: _part(as_text(Unread(stored.id, Document.CONTENT)), served),
        )
        response.direct_passthrough = False  # it goes through a file of the process, and counts as such answers do
        response.headers["Content-Disposition"] = attachment(name)
        response.make_conditional(request.environ)
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    return response


def _part(whole: Iterator[bytes], served: range) -> Iterator[bytes]:
    """Yield the bytes of a range."""
    at = 0
    for piece in whole:
        if at >= served.stop:
            return
        part = piece[max(0, served.start - at) : served.stop - at]
        at += len(piece)
        if part:
            yield part


def attachment(name: str) -> str:
    """Return the Content-Disposition for a file's name, whatever characters it has (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)
    spelled = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{spelled}'


def repr_digest(sha256: bytes) -> str:
    """Return the Repr-Digest of a file (RFC 9530), the same with each range of it."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def cut_short(why: str) -> BrokenPipeError:
    """Return the error that ends an answer early: gunicorn takes it for a lost client and closes the connection.

    If it stayed open, the client would wait for the rest, or take its next answer for it.
    """
    return BrokenPipeError(errno.EPIPE, why)
