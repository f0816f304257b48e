"""The source file of a job: whole, or a range of it; a holder's download is a sign of life."""

import errno
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

from flask import g, request, send_file
from werkzeug.wsgi import ClosingIterator, FileWrapper

from api.access import caller, runtime, scope
from api.body import header_text
from api.errors_of import gives
from api.workers import TOKEN, workers
from bridge.errors import BridgeError, Forbidden
from bridge.extend import Alive, extend, lost_lease
from bridge.holder import holds_latest
from bridge.look import find
from bridge.sources import find_source
from models.state import JobState

UNNAMED_LEASE_SECONDS = 60.0  # how often a download of a claim without a lease is looked at


@workers.route("/<job_id>/download", methods=["GET"])
@scope("work", "read")
@workers.response(200, {"type": "string", "format": "binary"}, content_type="application/octet-stream")
@workers.alt_response(206, description="The range that was asked for.", success=True)
@gives(workers, 404, 409, 416)
@workers.doc(parameters=[TOKEN])
def download(job_id: str) -> Any:
    """The source file. Only while the job is being processed; the holder's download acknowledges the claim."""
    token = header_text("X-Lease-Token", 100)
    job = find(runtime(), caller().tenant, job_id)
    g.job_status = job.status
    if job.status != JobState.PROCESSING:
        raise Forbidden(f"The job is {job.status}, not in processing state.", job_status=job.status)
    why = holds_latest(job, caller(), token)
    holder = why is None and caller().may("work")
    if not holder and (token is not None or not caller().may("read")):
        raise lost_lease(job, why)
    path = find_source(job.source_file_path, runtime().settings.source_roots)
    if not _understood(request.headers.get("Range", "bytes=0-")):
        request.environ.pop("HTTP_RANGE", None)
    response = send_file(path, mimetype="application/octet-stream", conditional=True, etag=True, max_age=None)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Disposition"] = "attachment"
    if holder and request.method == "GET" and response.status_code in (200, 206):
        renew = _renewer(job_id, token)
        renew()
        every = (job.lease_seconds or UNNAMED_LEASE_SECONDS * 3) / 3
        chunks = cast(FileWrapper, response.response)
        response.response = ClosingIterator(_lively(chunks, renew, every), [chunks.close])
    return response


def _understood(asked: str) -> bool:
    """RFC 9110 §14.2: an unknown unit and a last byte before the first are ignored, and several ranges may be."""
    match = re.fullmatch(r"bytes=(\d{1,18})-(\d{1,18})?|bytes=-\d{1,18}", asked)
    return match is not None and (match[2] is None or int(match[1]) <= int(match[2]))


def _renewer(job_id: str, token: str | None) -> Any:
    process, who = runtime(), caller()

    def renew() -> Alive:
        return extend(process, who, job_id, token=token)

    return renew


def _lively(chunks: Iterable[bytes], renew: Any, every: float) -> Iterator[bytes]:
    """Pass the bytes on; each third of a lease in which some went out is a sign of life."""
    last = time.monotonic()
    for chunk in chunks:
        if time.monotonic() - last >= every:
            try:
                cancelled = renew().cancel_requested
            except BridgeError:
                cancelled = True
            if cancelled:
                # The job is no longer this worker's. Less than the promised length must not look like the end of an
                # answer: gunicorn takes this for a lost client, and closes the connection.
                raise BrokenPipeError(errno.EPIPE, "the job is no longer this worker's")
            last = time.monotonic()
        yield chunk
