"""Download of a job's source file, whole or a range of it; the holder's download is a sign of life."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO, cast

import structlog
from flask import Response, g, request
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wsgi import ClosingIterator

from api.http.accelerated import accelerates, redirected
from api.http.access import caller, runtime, scope
from api.http.body import header_text
from api.http.bytes_response import attachment, bytes_response, cut_short, in_full, repr_digest, upload_response
from api.http.documented_errors import gives
from api.http.remote_response import object_response, redirect_to_source, remote_response
from api.http.send_file import connection, file_pieces
from api.http.tus import lively
from api.routes.work import TOKEN, work
from bridge.crash_points import reach
from bridge.errors import BridgeError, Forbidden, Unavailable
from bridge.jobs.bucket_sources import is_object
from bridge.jobs.extend import Alive, extend, lost_lease
from bridge.jobs.ownership import holds_latest
from bridge.jobs.read import find
from bridge.jobs.remote_sources import WORKER, is_remote
from bridge.jobs.source_files import open_source, source_name
from bridge.jobs.uploaded_sources import is_uploaded, uploaded_source
from bridge.runtime import OnFiles, Runtime
from models.job_state import JobState

log = structlog.get_logger("api")

UNNAMED_LEASE_SECONDS = 60.0  # between two signs of life of a download whose claim named no lease
BYTES = {"type": "string", "format": "binary"}
BY_STORE = "The file can be read at this address for the next 300 s, without a key: BRIDGE_STORE_REDIRECT is on."
ELSEWHERE = "The file can be read at this address without a key: in the store, or, for its worker, at its `source_url`."


@work.route("/<job:job_id>/download", methods=["GET"])
@scope("work", "read")
@work.response(200, BYTES, content_type="application/octet-stream")
@work.alt_response(206, schema=BYTES, content_type="application/octet-stream", description="The requested range.")
@work.alt_response(304, description="Not modified: the file still has the ETag of If-None-Match.")
@work.alt_response(307, description=ELSEWHERE)
@gives(work, 404, 409, 416, parameters=[TOKEN])
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
    if accelerates(runtime()) and not is_uploaded(job.source_file_path) and not is_remote(job.source_file_path):
        answer = _declared(redirected(runtime(), job.source_file_path), job)
        if holder and request.method == "GET":
            extend(
                runtime(), caller(), job_id, token=token
            )  # nginx does not report what it sends: the request itself is the sign of life
        return answer
    if holder and job.source_fetch == WORKER and runtime().settings.source_worker_fetch:
        response = redirect_to_source(runtime(), job.source_file_path, f"{job.id}.bin")
    else:
        response = source_response(job, by_store=True)
    _declared(response, job)
    return alive_while_sent(response, job, token) if holder else response


def alive_while_sent(response: Response, job: Row[Any], token: str | None) -> Response:
    """Make a GET of the job's holder a sign of life, and each third of a lease in which bytes of its answer are sent.

    Raises Conflict (lease_lost).
    """
    renew = partial(extend, runtime(), caller(), str(job.id), token=token)
    if request.method == "GET" and response.status_code == 307:
        renew()  # a download from another address is not reported either
    if request.method == "GET" and response.status_code in (200, 206):
        with ExitStack() as stack:
            stack.callback(response.close)
            renew()
            stack.pop_all()
        every = (job.lease_seconds or UNNAMED_LEASE_SECONDS * 3) / 3
        chunks = cast(Iterable[bytes], response.response)
        response.response = ClosingIterator(lively(chunks, partial(_unless_lost, renew), every), [chunks.close])  # type: ignore[attr-defined]
    return response


def _declared(response: Response, job: Row[Any]) -> Response:
    """Return the answer with the digest that the producer declared, if any; what comes is not held against it here."""
    if job.source_sha256 is not None:
        response.headers["Repr-Digest"] = repr_digest(job.source_sha256)
    return response


def source_response(job: Row[Any], *, by_store: bool = False) -> Response:
    """Return a job's source: an upload, a file at an address or in a bucket, or a local file, closed with the response.

    `by_store`: redirect to the store for an upload, where the operator lets it send the bytes itself.
    Raises NotFound, Unavailable, 416.
    """
    process = runtime()
    if is_uploaded(job.source_file_path):
        upload = uploaded_source(process, job.source_file_path)
        return upload_response(process, upload, f"{job.id}.bin", by_store=by_store)
    if is_object(job.source_file_path):
        return object_response(process, job.source_file_path, f"{job.id}.bin")
    if is_remote(job.source_file_path):
        return remote_response(process, job.source_file_path, f"{job.id}.bin")
    file = process.files(open_source, job.source_file_path, process.settings.source_roots)
    return _file_response(file, source_name(job.source_file_path), process)


def _file_response(file: BinaryIO, name: str, process: Runtime) -> Response:
    with ExitStack() as stack:
        stack.callback(file.close)
        seen = process.files(os.fstat, file.fileno())
        etag = f"{seen.st_ino:x}-{seen.st_mtime_ns:x}-{seen.st_size:x}"

        def body(served: range) -> Iterable[bytes]:
            return ClosingIterator(_bytes(file, served, process.sends), [file.close])

        response = bytes_response(seen.st_size, etag, seen.st_mtime, body)
        response.headers["Content-Disposition"] = attachment(name)
        response.make_conditional(request.environ)
        stack.pop_all()
    return response


def _bytes(file: BinaryIO, served: range, files: OnFiles) -> Iterator[bytes]:
    """Yield a range of an open file. It may shrink, or its file system stop answering."""
    sock = connection(request.environ)

    def pieces() -> Iterator[tuple[int, bytes]]:
        reach("download.before_first_byte")
        for count, piece in file_pieces(sock, file, served, files):
            yield count, piece
            reach("download.between_pieces", count)

    return in_full(pieces(), served, (Unavailable,), "the file system does not answer", "the file has shrunk")


def _unless_lost(renew: Callable[[], Alive]) -> None:
    """Give a sign of life. Only a worker that has lost the job loses the download: what PostgreSQL cannot take is
    repeated after the next third of the lease."""
    try:
        lost = renew().cancel_requested
    except BridgeError:
        lost = True
    except SQLAlchemyError as error:
        log.warning("download_not_recorded", error=type(error).__name__)
        return
    if lost:
        raise cut_short("the job is no longer this worker's")
