"""Sends a local file as a resumable upload (tus 1.0)."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from jobbridge_client import calls
from jobbridge_client.answers import Pauses, document, passes, patient, refusal, retry_after
from jobbridge_client.errors import BadAnswer, BadFile, BridgeError, Conflict, NotFound, OtherBytes, Unreachable
from jobbridge_client.records import Job, Upload
from jobbridge_client.steps import FilePart, Pause, Reply, Request, Steps, send, sha256_of, work

UPLOADS = "/api/v1/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}
AT_ONCE_BYTES = 2**20  # of a file that is sent with its announcement
DIGEST_SECONDS = 600.0  # the answer to the last piece waits for the file's digest
BROKEN = (400, 460)  # of bytes that were cut or changed on the way: they may be sent again
MOVED = ("wrong_offset", "error")  # 409: go on from the offset; the reason of the second was lost with the connection
TIMES = 3  # that a refusal for one of these is met without any progress

Progress = Callable[[Upload], object]


def submit(
    path: str | os.PathLike[str], fields: Mapping[str, Any], key: str | None, progress: Progress | None, patience: float
) -> Steps[Job]:
    """Send a file and create a job for it."""
    sent = yield from upload(path, described(path), None, progress, patience)
    task = fields.get("ingestion_task_id") or Path(path).name
    named = {**fields, "ingestion_task_id": task, "source_upload": sent.upload_id}
    try:
        return (yield from calls.create(named, key, patience))
    except BridgeError as error:
        error.upload = sent
        raise


def upload(
    path: str | os.PathLike[str],
    metadata: Mapping[str, str],
    resume: str | None,
    progress: Progress | None,
    patience: float,
) -> Steps[Upload]:
    """Send a file; on return the bridge has exactly its bytes. Any progress restarts the `patience`.

    `metadata` is what the bridge is told about it: `described`, or the job of a worker's upload.
    """
    file = yield from work(lambda: _opened(path))
    try:
        length = yield from work(lambda: _length(file))
        state = None if resume is None else (yield from _resumed(resume, length, patience))
        if state is None:
            state = yield from _announced(file, metadata, length, patience)
        try:
            whole = yield from _send_all(file, state, progress, patience)
        except BridgeError as error:
            error.upload = error.upload or state
            raise
        if (yield from work(lambda: sha256_of(file))) != whole.sha256:
            raise OtherBytes(
                f"{path} is not what the bridge has of it: it changed while it was sent, or its bytes did on the way"
            )
        return whole
    finally:
        file.close()


def delete(upload_id: str) -> Steps[None]:
    """Delete an upload, in one try. Raises Refused where there is none."""
    reply = yield from send(Request("DELETE", f"{UPLOADS}/{calls.part(upload_id)}", headers=TUS, seconds=10.0))
    if reply.status != 204:
        raise refusal(reply)


def described(path: str | os.PathLike[str], name: str | None = None, media_type: str | None = None) -> dict[str, str]:
    """Return the metadata of a producer's file."""
    name = name or Path(path).name
    return {"filename": name, "filetype": media_type or mimetypes.guess_type(name)[0] or ""}


def _announced(file: BinaryIO, metadata: Mapping[str, str], length: int, patience: float) -> Steps[Upload]:
    """Announce an upload, and send a small file with it."""
    pairs = [f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items() if value]
    asked = Request("POST", UPLOADS, headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": ",".join(pairs)})
    if 0 < length <= AT_ONCE_BYTES:
        asked = replace(
            asked, body=FilePart(file, 0, length), headers={**asked.headers, **BYTES}, seconds=DIGEST_SECONDS
        )
    return Upload.read(document((yield from patient(asked, patience))))


def _resumed(upload_id: str, length: int, patience: float) -> Steps[Upload | None]:
    try:
        state = yield from _state(upload_id, patience)
    except NotFound:
        return None  # it has expired
    if state.length != length:
        raise BadFile(f"upload {upload_id} has {state.length} bytes, the file {length}: it is another file")
    return state


def _state(upload_id: str, patience: float) -> Steps[Upload]:
    asked = Request("GET", f"{UPLOADS}/{calls.part(upload_id)}", headers=TUS)
    return Upload.read(document((yield from patient(asked, patience))))


def _send_all(file: BinaryIO, state: Upload, progress: Progress | None, patience: float) -> Steps[Upload]:
    pauses, stuck = Pauses(patience), 0
    if progress is not None:
        progress(state)
    while state.received < state.length or state.sha256 is None:
        before, asked, moved = state.received, None, False
        failed: BridgeError | None = None
        try:
            reply = yield from _send_rest(file, state, progress)
            if reply.status != 204:
                failed, asked = refusal(reply), retry_after(reply)
                moved = isinstance(failed, Conflict) and failed.code in MOVED
                again = moved or reply.status in BROKEN
                stuck += again
                if not (passes(reply.status) or (again and stuck <= TIMES)):
                    raise failed
        except Unreachable as error:
            failed = error
        try:
            state = yield from _state(state.upload_id, patience)
        except BridgeError as error:
            error.upload = state
            raise
        if state.received > before:
            pauses.again()
            stuck = 0
            if moved:  # what was sent before a cut arrived after all
                continue
        if failed is None and (state.received < state.length or state.sha256 is None):
            failed = BadAnswer("the bridge took the bytes and has no digest of them")
        if failed is not None and (state.received < state.length or state.sha256 is None):
            pause = pauses.next(asked)
            if pause is None:
                failed.upload = state
                raise failed
            yield Pause(pause, failed)
    if progress is not None:
        progress(state)
    return state


def _send_rest(file: BinaryIO, state: Upload, progress: Progress | None) -> Steps[Reply]:
    length = yield from work(lambda: _length(file))
    if length != state.length:
        raise BadFile(f"the file has {length} bytes now and had {state.length}")

    def sent(so_far: int) -> None:
        if progress is not None:
            progress(replace(state, received=so_far))

    return (
        yield from send(
            Request(
                "PATCH",
                f"{UPLOADS}/{calls.part(state.upload_id)}",
                body=FilePart(file, state.received, state.length - state.received, sent),
                headers={**TUS, **BYTES, "Upload-Offset": str(state.received)},
                seconds=DIGEST_SECONDS,
            )
        )
    )


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or type(error).__name__}") from None


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
