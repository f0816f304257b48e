"""The calls about jobs, each a generator of steps (steps.py)."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from jobbridge_client.answers import document, patient
from jobbridge_client.errors import BadAnswer, BadSetting, Conflict, JobFailed, WaitTimeout
from jobbridge_client.records import Batch, BatchState, Job, Page, Result, Upload, member, optional
from jobbridge_client.steps import DOCUMENT_LIMIT, Pause, Request, Steps

BASE = "/api/v1/remote-jobs"
FIRST_LOOK, LONGEST_LOOK = 0.25, 5.0  # seconds between two checks of a job while waiting


def path_of(job: Job | str, rest: str = "") -> str:
    """Return the path of a job. Raises BadSetting."""
    return f"{BASE}/{part(job.job_id if isinstance(job, Job) else job)}{rest}"


def part(text: str) -> str:
    """Return a text as one part of a path. Raises BadSetting for one that cannot be."""
    if text in ("", ".", ".."):
        raise BadSetting(f"{text!r} is neither an ID nor a name")
    return quote(text, safe="")


def create(fields: Mapping[str, Any], idempotency_key: str | None, patience: float) -> Steps[Job]:
    """Create a job. One key is one job, also when repeated after a lost answer."""
    answer = yield from patient(_creating(BASE, _written(fields), idempotency_key), patience)
    return Job.read(document(answer))


def create_batch(
    jobs: Sequence[Mapping[str, Any]], told: Mapping[str, Any], idempotency_key: str | None, patience: float
) -> Steps[Batch]:
    """Create 1 to 1000 jobs, all or none."""
    given = {name: value for name, value in told.items() if value is not None}
    body = {"jobs": [_written(fields) for fields in jobs], **given}
    data = document((yield from patient(_creating(BASE + "/batch", body, idempotency_key), patience)))
    return Batch(optional(data, "batch_id", str), _jobs(data))


def batch_state(batch_id: str, patience: float) -> Steps[BatchState]:
    """Return the state of a batch."""
    asked = Request("GET", f"/api/v1/batches/{part(batch_id)}")
    data = document((yield from patient(asked, patience)))
    counts = (member(data, "jobs", int), member(data, "by_status", dict))
    return BatchState(member(data, "batch_id", str), *counts, member(data, "ended", bool))


def status(job: Job | str, patience: float) -> Steps[Job]:
    """Return the state of a job, in its short form."""
    return Job.read(document((yield from patient(Request("GET", path_of(job, "/status")), patience))))


def get(job: Job | str, patience: float) -> Steps[Job]:
    """Return the whole job; its attempts are in `data`."""
    return Job.read(document((yield from patient(Request("GET", path_of(job), limit=DOCUMENT_LIMIT), patience))))


def page(filters: Mapping[str, Any], patience: float) -> Steps[Page]:
    """Return a page of the list."""
    query = {name: str(value) for name, value in _written(filters).items() if value is not None}
    data = document((yield from patient(Request("GET", BASE, query, limit=DOCUMENT_LIMIT), patience)))
    return Page(_jobs(data), optional(data, "next_cursor", str))


def cancel(job: Job | str, patience: float) -> Steps[Job]:
    """Cancel a job."""
    yield from _steer(job, "/cancel", patience)
    return (yield from status(job, patience))


def retry(job: Job | str, patience: float) -> Steps[Job]:
    """Retry a job that failed, timed out or was cancelled."""
    yield from _steer(job, "/retry", patience)
    return (yield from status(job, patience))


def _steer(job: Job | str, verb: str, patience: float) -> Steps[None]:
    reply = yield from patient(Request("POST", path_of(job, verb)), patience)
    try:
        document(reply)
    except Conflict as refused:
        # The retry took effect, its answer was lost, and a worker has claimed the job since.
        if not (reply.repeated and verb == "/retry" and refused.code == "not_ready"):
            raise


def wait(
    job: Job | str, timeout: float | None, check: bool, seen: Callable[[Job], object] | None, patience: float
) -> Steps[Job]:
    """Check a job until it has ended: first after 0.25 s, then less and less often, up to every 5 s."""
    until = None if timeout is None else time.monotonic() + timeout
    look, last = FIRST_LOOK, None
    while True:
        # A bridge that is away for a while does not end a longer wait.
        now = yield from status(job, patience if until is None else max(patience, until - time.monotonic()))
        if seen is not None and now != last:
            seen(now)
        if now.ended:
            if check and now.status != "completed":
                raise JobFailed(now)
            return now
        look = FIRST_LOOK if last is not None and now.status != last.status else look
        last, pause = now, look * random.uniform(0.8, 1.2)
        left = float("inf") if until is None else until - time.monotonic()
        if left <= 0:
            raise WaitTimeout(now)
        yield Pause(min(pause, left))
        look = min(look * 1.5, LONGEST_LOOK)


def result(job: Job | str, patience: float) -> Steps[Result]:
    """Fetch a result with its text, of at most 64 MiB as JSON."""
    asked = Request("GET", path_of(job, "/result"), limit=DOCUMENT_LIMIT)
    data = document((yield from patient(asked, patience)))
    counted = optional(data, "processing_time", float)
    return Result(optional(data, "content", str) or "", optional(data, "metadata", dict), counted, data)


def _creating(path: str, body: dict[str, Any], idempotency_key: str | None) -> Request:
    key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
    if not re.fullmatch(r"[!-~]([ -~]{0,253}[!-~])?", key):
        raise BadSetting("idempotency_key: 1 to 255 visible ASCII characters")
    return Request("POST", path, json=body, headers={"Idempotency-Key": key})


def _written(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_json(one) for name, one in fields.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, Upload):
        return value.upload_id
    return value.isoformat() if isinstance(value, datetime) else value


def _jobs(data: dict[str, Any]) -> list[Job]:
    jobs = member(data, "jobs", list)
    if not all(isinstance(one, dict) for one in jobs):
        raise BadAnswer("the answer was not understood: jobs has something else in it")
    return [Job.read(one) for one in jobs]


def source(path: str | None, upload: Upload | str | None, url: str | None) -> dict[str, Any]:
    """Return the field that names a job's source. Raises BadSetting."""
    fields = {"source_file_path": path, "source_upload": upload, "source_url": url}
    given = {name: one for name, one in fields.items() if one is not None}
    if len(given) != 1:
        raise BadSetting(f"{', '.join(fields)}: give one of them")
    return given
