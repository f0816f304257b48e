"""The client for asyncio."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.to_thread
import httpx2

from jobbridge_client import calls, downloads, resumable_uploads
from jobbridge_client.connection import BEYOND_SECONDS, ENDLESS, Settings, built, head, takers, told
from jobbridge_client.errors import BadAnswer
from jobbridge_client.records import Artifact, Batch, BatchState, Job, Page, Result, Upload
from jobbridge_client.steps import DOCUMENT_LIMIT, FilePart, Pause, Reply, Request, Step, Steps, Work, send

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from jobbridge_client.records import Filters, JobFields

T = TypeVar("T")


class AsyncClient(Settings):
    """A bridge at an address, with a key. An async context manager, or `close` it.

    Each call repeats failures that may pass (no answer, 429, 5xx) for up to `patience` seconds, never sooner than
    Retry-After says, and then raises; every call may raise Unreachable, Refused and BadAnswer. Over plain http a key is
    sent to this machine only, unless `allow_http` says that the network is yours. `tls` is for your own certificate
    authority; by default the system's are trusted.
    """

    _KIND = httpx2.AsyncClient
    _http: httpx2.AsyncClient

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()

    async def submit(
        self,
        path: str | os.PathLike[str],
        content_type: str,
        *,
        ingestion_task_id: str | None = None,
        idempotency_key: str | None = None,
        progress: Callable[[Upload], object] | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Send a local file and create a job for it; `ingestion_task_id` defaults to the file's name.

        For a job that a restarted program must not create twice, `upload` and `create` it under your own key.
        Raises BadFile.
        """
        given = {"content_type": content_type, "ingestion_task_id": ingestion_task_id, **fields}
        return await self._run(resumable_uploads.submit(path, given, idempotency_key, progress, self._patience))

    async def create(
        self,
        content_type: str,
        *,
        ingestion_task_id: str,
        source_file_path: str | None = None,
        source_upload: str | Upload | None = None,
        source_url: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Create a job for a file that the bridge sees at a path, for an upload, or for a file at an address.

        `idempotency_key`: the same key names the same job, as long as that is kept; by default one key per call.
        """
        source = calls.source(source_file_path, source_upload, source_url)
        given = {"content_type": content_type, "ingestion_task_id": ingestion_task_id, **source, **fields}
        return await self._run(calls.create(given, idempotency_key, self._patience))

    async def create_batch(
        self,
        jobs: Sequence[Mapping[str, Any]],
        *,
        outcome: bool = False,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Create 1 to 1000 jobs, all or none; each is a mapping of a job's fields.

        `outcome`: the pipeline gets one outcome when all of them have ended, and so does `callback_url`, if given.
        """
        told = {"outcome": outcome or None, "callback_url": callback_url}
        return await self._run(calls.create_batch(jobs, told, idempotency_key, self._patience))

    async def upload(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        media_type: str | None = None,
        resume: str | None = None,
        progress: Callable[[Upload], object] | None = None,
    ) -> Upload:
        """Send a local file; what arrived before a connection broke is not sent again.

        `progress` is called with the state, first when the upload has its ID: a program that stores it can go on after
        a restart by `resume`. An upload is kept for a day after its last byte. Raises BadFile; `error.upload` is how
        far it came.
        """
        told = resumable_uploads.described(path, name, media_type)
        return await self._run(resumable_uploads.upload(path, told, resume, progress, self._patience))

    async def status(self, job: Job | str) -> Job:
        """Return the state of a job, in its short form."""
        return await self._run(calls.status(job, self._patience))

    async def get(self, job: Job | str) -> Job:
        """Return the whole job; its attempts are in `data`."""
        return await self._run(calls.get(job, self._patience))

    async def page(self, *, cursor: str | None = None, limit: int = 50, **filters: Unpack[Filters]) -> Page:
        """Return a page of jobs, newest first; `filters` are those of the list (`status`, `content_type`, …)."""
        return await self._run(calls.page({**filters, "cursor": cursor, "limit": limit}, self._patience))

    async def jobs(self, **filters: Unpack[Filters]) -> AsyncIterator[Job]:
        """Yield all jobs that match, newest first, a page at a time."""
        cursor: str | None = None
        while True:
            page = await self.page(cursor=cursor, **filters)
            for job in page.jobs:
                yield job
            if (cursor := page.next_cursor) is None:
                return

    async def batch(self, batch_id: str) -> BatchState:
        """Return the state of a batch."""
        return await self._run(calls.batch_state(batch_id, self._patience))

    async def wait(
        self,
        job: Job | str,
        *,
        timeout: float | None = None,
        check: bool = True,
        seen: Callable[[Job], object] | None = None,
    ) -> Job:
        """Wait until a job has ended. Raises JobFailed unless it was completed (with `check`), WaitTimeout.

        `timeout` is in seconds; `seen` is called with each state that differs from the last.
        """
        return await self._run(calls.wait(job, timeout, check, seen, self._patience))

    async def result(self, job: Job | str) -> Result:
        """Fetch a result with its text, of at most 64 MiB as JSON; for a longer one, use `save_result`.

        Raises Conflict (`not_ready`) where there is no result.
        """
        return await self._run(calls.result(job, self._patience))

    async def save_result(self, job: Job | str, path: str | os.PathLike[str]) -> Path:
        """Fetch a result's text, however long, into a file, which appears once it is complete. Raises BadFile."""
        return await self._run(downloads.save_result(job, path, self._patience))

    async def artifacts(self, job: Job | str) -> list[Artifact]:
        """List the files that a job's result has besides its text, by name; at most 1000."""
        return await self._run(downloads.artifacts(job, self._patience))

    async def save_artifact(self, job: Job | str, artifact: Artifact | str, path: str | os.PathLike[str]) -> Path:
        """Fetch an artifact into a file, which appears once it is complete. Raises BadFile."""
        return await self._run(downloads.save_artifact(job, artifact, path, self._patience))

    async def save_artifacts(self, job: Job | str, directory: str | os.PathLike[str]) -> list[Path]:
        """Fetch all artifacts of a job into a directory, under their names; existing files are replaced."""
        return await self._run(downloads.save_artifacts(job, directory, self._patience))

    async def cancel(self, job: Job | str) -> Job:
        """Cancel a job. Raises Conflict if it has ended in another way."""
        return await self._run(calls.cancel(job, self._patience))

    async def retry(self, job: Job | str) -> Job:
        """Retry a failed, timed-out or cancelled job. Raises Conflict if it is completed or processing."""
        return await self._run(calls.retry(job, self._patience))

    async def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        seconds: float = 60.0,
    ) -> Reply:
        """Make a request that no other method makes, once, and return the answer, whatever it is, up to 64 MiB."""
        asked = Request(method, path, params or {}, json, headers=headers or {}, seconds=seconds, limit=DOCUMENT_LIMIT)
        return await self._run(send(asked))

    async def _run(self, steps: Steps[T]) -> T:
        """Run the steps of a call until it returns."""
        with closing(steps):
            came: Any = None
            while True:
                try:
                    step = steps.throw(came) if isinstance(came, Exception) else steps.send(came)
                except StopIteration as end:
                    result: T = end.value
                    return result
                try:
                    came = await self._do(step)
                except Exception as error:
                    came = told(error, self._url)

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await anyio.sleep(step.seconds)
        return await (anyio.to_thread.run_sync(step.do) if isinstance(step, Work) else self._send(step))

    async def _send(self, request: Request) -> Reply:
        until = time.monotonic() + request.seconds + BEYOND_SECONDS
        content = _read(request.body) if request.body is not None else None
        response = await self._http.send(built(self._http, request, content), stream=True)
        try:
            reply = head(response)
            taker, body = takers(request, reply)
            async for piece in response.aiter_raw():
                if taker is not body:
                    await anyio.to_thread.run_sync(taker.take, piece)
                    continue
                taker.take(piece)
                if time.monotonic() > until:
                    raise BadAnswer(ENDLESS)
        finally:
            await response.aclose()
        return replace(reply, body=bytes(body.data))


async def _read(part: FilePart) -> AsyncIterator[bytes]:
    pieces = part.pieces()
    while piece := await anyio.to_thread.run_sync(next, pieces, b""):
        yield piece
