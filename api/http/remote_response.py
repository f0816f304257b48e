"""A source at an address, or in a bucket, as an answer: its bytes are passed through, one piece at a time."""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from flask import Response, request
from werkzeug.datastructures import ContentRange
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_date
from werkzeug.wsgi import ClosingIterator

from api.http.access import caller, limits
from api.http.bytes_response import attachment, bytes_response, in_full
from bridge.errors import NotFound, Unavailable
from bridge.jobs.bucket_sources import Seen, is_object, look_at_object, object_pieces
from bridge.jobs.remote_sources import WORKER, OutsideFile, Part, address_for_worker, open_remote, remote_name
from bridge.outgoing.connect import NotSent
from bridge.runtime import Runtime

FETCHED_BY = "X-Source-Fetch"


def remote_response(runtime: Runtime, url: str, otherwise: str) -> Response:
    """Return the file at the address, or the range asked for, under its name, else `otherwise`.

    Raises NotFound, Unavailable, TooMany, 416.
    """
    with limits().remote_downloads.begin(caller()) as held:
        try:
            part = open_remote(runtime, caller().tenant, url, _one_range(), request.headers.get("If-Range"))
        except OutsideFile as outside:
            raise RequestedRangeNotSatisfiable(outside.size) from None
        held.callback(part.fetched.close)
        kept = ExitStack()
        response = _response(ClosingIterator(_bytes(part), [kept.close]), part, remote_name(url, otherwise))
        kept.enter_context(held.pop_all())
    return response


def _bytes(part: Part) -> Iterator[bytes]:
    """Yield the bytes that come, up to the announced size."""
    pieces = ((len(piece), piece) for piece in part.fetched.pieces())
    silent, short = "the source's server does not go on", "the source's server ended before the end"
    return in_full(pieces, part.served, (NotSent,), silent, short)


def _response(body: Iterable[bytes], part: Part, name: str) -> Response:
    response = Response(body, mimetype="application/octet-stream", direct_passthrough=True)
    response.content_length = len(part.served)
    if part.fetched.status == 206:
        response.status_code = 206
        response.content_range = ContentRange("bytes", part.served.start, part.served.stop, part.size)
    response.accept_ranges = "bytes"
    response.last_modified = parse_date(part.modified)
    if part.etag is not None:
        response.set_etag(part.etag)
    response.headers["Content-Disposition"] = attachment(name)
    response.make_conditional(request.environ)
    return response


def object_response(runtime: Runtime, url: str, otherwise: str) -> Response:
    """Return an object of a bucket, or the range asked for, under its name, else `otherwise`.

    Raises NotFound, Unavailable, TooMany, 416.
    """
    with limits().remote_downloads.begin(caller()) as held:
        kept = ExitStack()
        response = _object(runtime, look_at_object(runtime, url), remote_name(url, otherwise), kept)
        kept.enter_context(held.pop_all())
    return response


def _object(runtime: Runtime, seen: Seen, name: str, kept: ExitStack) -> Response:
    """Return the object as an answer. `kept`: what is closed with the body."""

    def read(served: range) -> Iterator[bytes]:
        pieces = ((len(piece), piece) for piece in object_pieces(runtime, seen, served))
        silent, short = "the source's store does not go on", "the source's store ended before the end"
        return in_full(pieces, served, (NotFound, Unavailable), silent, short)

    response = bytes_response(
        seen.size, seen.etag, seen.modified, lambda served: ClosingIterator(read(served), [kept.close])
    )
    response.headers["Content-Disposition"] = attachment(name)
    response.make_conditional(request.environ)
    return response


def redirect_to_source(runtime: Runtime, url: str, otherwise: str) -> Response:
    """Redirect the worker to fetch the source itself, under its name, else `otherwise`. Raises NotFound, Unavailable.

    An address that the producer named is marked by FETCHED_BY: the worker must judge where it leads. That of a bucket
    is the operator's.
    """
    response = Response(status=307, mimetype="application/octet-stream")
    response.headers["Location"] = address_for_worker(runtime, url)
    response.headers["Content-Disposition"] = attachment(remote_name(url, otherwise))
    if not is_object(url):
        response.headers[FETCHED_BY] = WORKER
    return response


def _one_range() -> str | None:
    """Return the range asked for in its plain spelling; None where it is not a single one, as for other sources."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", request.headers.get("Range", ""), re.IGNORECASE)
    if found is None or not (found[1] or found[2]) or (found[1] and found[2] and int(found[2]) < int(found[1])):
        return None
    return f"bytes={found[1]}-{found[2]}"
