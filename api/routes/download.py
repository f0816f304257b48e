"""The source file of a job: whole, or a range of it; a holder's download is a sign of life."""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import structlog
from flask import Response, g, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import ContentRange
from werkzeug.wsgi import ClosingIterator

from api.http.accelerated import accelerates, redirected
from api.http.access import caller, runtime, scope
from api.http.body import header_text
from api.http.byte_range import asked_range, still_the_same
from api.http.documented_errors import gives
from api.routes.work import TOKEN, workers
from bridge.crash_points import reach
from bridge.errors import BridgeError, Forbidden, Unavailable
from bridge.jobs.extend import Alive, extend, lost_lease
from bridge.jobs.ownership import holds_latest
from bridge.jobs.read import find
from bridge.jobs.source_files import open_source
from bridge.runtime import OnFiles
from models.state import JobState

log = structlog.get_logger("api")

UNNAMED_LEASE_SECONDS = 60.0  # how often a download of a claim without a lease is looked at
PIECE = 64 * 1024  # bytes read at a time
BYTES = {"type": "string", "format": "binary"}


@workers.route("/<job:job_id>/download", methods=["GET"])
@scope("work", "read")
@workers.response(200, BYTES, content_type="application/octet-stream")
@workers.alt_response(
    206, schema=BYTES, content_type="application/octet-stream", description="The range that was asked for."
)
@workers.alt_response(304, description="Not modified: the file still has the ETag of If-None-Match.")
@gives(workers, 404, 409, 416)
@workers.doc(parameters=[TOKEN])
def download(job_id: str) -> Any:
    """Download the source file, only while the job is processing. The holder's download acknowledges the claim."""
    token = header_text("X-Lease-Token", 100)
    job = find(runtime(), caller().tenant, job_id)
    g.job_status = job.status
    if job.status != JobState.PROCESSING:
        raise Forbidden(f"The job is {job.status}, not in processing state.", job_status=job.status)
    why = holds_latest(job, caller(), token)
    holder = why is None and caller().may("work")
    if not holder and (token is not None or not caller().may("read")):
        raise lost_lease(job, why)
    if accelerates(runtime()):
        answer = redirected(runtime(), job.source_file_path, f"{job.id}.bin")
        if holder and request.method == "GET":
            _renewer(job_id, token)()  # nginx does not tell of the bytes that go out: the beginning is the sign of life
        return answer
    files = runtime().files
    file = files(open_source, job.source_file_path, runtime().settings.source_roots)
    response = file_response(file, f"{job.id}.bin", files)
    if holder and request.method == "GET" and response.status_code in (200, 206):
        renew = _renewer(job_id, token)
        with ExitStack() as stack:
            stack.callback(response.close)
            renew()
            stack.pop_all()
        every = (job.lease_seconds or UNNAMED_LEASE_SECONDS * 3) / 3
        chunks = cast(Iterable[bytes], response.response)
        response.response = ClosingIterator(_lively(chunks, renew, every), [chunks.close])  # type: ignore[attr-defined]
    return response


def file_response(file: BinaryIO, name: str, files: OnFiles) -> Response:
    """The file, whole or the range of it that was asked for; it is closed with the response."""
    with ExitStack() as stack:
        stack.callback(file.close)
        seen = files(os.fstat, file.fileno())
        etag = f"{seen.st_ino:x}-{seen.st_mtime_ns:x}-{seen.st_size:x}"
        asked = None
        if still_the_same(request.headers.get("If-Range"), etag, seen.st_mtime):
            asked = asked_range(request.headers.get("Range"), seen.st_size)
        served = range(seen.st_size) if asked is None else asked
        file.seek(served.start)
        response = Response(
            _Bytes(file, len(served), files), mimetype="application/octet-stream", direct_passthrough=True
        )
        response.content_length = len(served)
        if asked is not None:
            response.status_code = 206
            response.content_range = ContentRange("bytes", asked.start, asked.stop, seen.st_size)
        response.accept_ranges = "bytes"
        response.last_modified = datetime.fromtimestamp(int(seen.st_mtime), UTC)
        response.set_etag(etag)
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        response.make_conditional(request.environ)
        stack.pop_all()
    return response


def cut_short(why: str) -> BrokenPipeError:
    """Ends an answer before its promised length: gunicorn takes it for a lost client, and closes the connection.

    On one that stayed open the client would wait for the rest, or take its next answer for it.
    """
    return BrokenPipeError(errno.EPIPE, why)


class _Bytes:
    """So many bytes of an open file, in pieces. A file that shrinks, or whose file system does not answer any more,
    ends it early, so that the client sees a gap."""

    def __init__(self, file: BinaryIO, count: int, files: OnFiles) -> None:
        self._file = file
        self._left = count
        self._files = files

    def __iter__(self) -> Iterator[bytes]:
        reach("download.before_first_byte")
        while self._left:
            try:
                piece = self._files(self._file.read, min(PIECE, self._left))
            except Unavailable:
                raise cut_short("the file system does not answer") from None
            if not piece:
                raise cut_short("the file has shrunk")
            self._left -= len(piece)
            yield piece
            reach("download.between_pieces")

    def close(self) -> None:
        self._file.close()


def _renewer(job_id: str, token: str | None) -> Any:
    process, who = runtime(), caller()

    def renew() -> Alive:
        return extend(process, who, job_id, token=token)

    return renew


def _lively(chunks: Iterable[bytes], renew: Any, every: float) -> Iterator[bytes]:
    """Pass the bytes on; each third of a lease in which some went out is a sign of life.

    Only who has lost the job loses the download: a sign that PostgreSQL cannot take is given again with the next third.
    """
    last = time.monotonic()
    for chunk in chunks:
        if time.monotonic() - last >= every:
            try:
                cancelled = renew().cancel_requested
            except BridgeError:
                cancelled = True
            except SQLAlchemyError as error:
                log.warning("download_not_recorded", error=type(error).__name__)
                cancelled = False
            if cancelled:
                raise cut_short("the job is no longer this worker's")
            last = time.monotonic()
        yield chunk
