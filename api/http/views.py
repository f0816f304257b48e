"""Turns rows into wire shapes (api/schemas/)."""

import mimetypes
from collections import defaultdict
from secrets import token_hex
from typing import Any

import orjson
from flask import Response
from sqlalchemy import Row

from api.http.sending import in_pieces
from api.schemas import jobs as schemas
from bridge.insight.durations import estimated_completion
from bridge.jobs.artifacts import Standing
from bridge.jobs.claim import Claimed
from bridge.jobs.documents import AT_ONCE, Document, Unread, UnreadFile, size_of
from bridge.jobs.read import History
from bridge.jobs.remote_sources import BRIDGE, is_remote, remote_name, without_query
from bridge.jobs.source_files import source_name
from bridge.names import job_path
from bridge.queues import RANKS
from bridge.runtime import Runtime
from bridge.workers.roster import WorkerInfo
from models.job_state import JobState, Priority

SHORT = ("created_at", "started_at", "completed_at", "error_message", "retry_count", "content_type", "attempt")
PAUSE = ("by", "reason", "paused_at", "until", "drain")
FIRST = ("job_id", "source_file_url", "content_type", "task_options")  # of the first job, beside the list
DOCUMENTS = (*Document, "processing_time")  # passed on as their stored text, past the schemas
JOB, WHOLE_JOB = schemas.Job(), schemas.WholeJob()
NOTHING: dict[str, Any] = {**dict.fromkeys(FIRST), "jobs": []}


def json_response(body: Any) -> Response:
    """Return a 200 made by orjson, which is quicker than a schema's dump. Unread documents are read when it is sent."""
    mark, unread = token_hex(16), list[Unread | UnreadFile]()

    def later(value: object) -> Any:
        if not isinstance(value, Unread | UnreadFile):
            raise TypeError(f"{type(value).__name__} is not JSON")
        unread.append(value)
        return orjson.Fragment(mark)

    text = orjson.dumps(body, default=later)
    sent = in_pieces(text.split(mark.encode()), unread) if unread else text
    return Response(sent, content_type="application/json")


def asked_priority(job: Row[Any]) -> Priority:
    """Return the priority that a job was created with; its age may have raised it since."""
    rank: int = job.priority if job.asked_priority is None else job.asked_priority
    return RANKS[rank]


def poll_answer(claimed: list[Claimed]) -> dict[str, Any]:
    """Return a schemas.PollAnswer."""
    if not claimed:
        return NOTHING
    jobs = [claimed_view(job) for job in claimed]
    return {**{name: jobs[0][name] for name in FIRST}, "jobs": jobs}


def claimed_view(job: Claimed) -> dict[str, Any]:
    """Return a schemas.ClaimedJob; `task_options` are passed on as their stored text."""
    options = job.task_options
    return {
        "job_id": job.job_id,
        "source_file_url": job_path(job.job_id, "download"),
        **_source(job),
        "content_type": job.content_type,
        "task_options": Unread(job.job_id, Document.TASK_OPTIONS) if options is None else orjson.Fragment(options),
        **_checkpoint(job),
        "attempt": job.attempt,
        "retry_count": job.retry_count,
        "priority": RANKS[job.priority],
        "timeout_at": job.timeout_at,
        "lease_token": job.lease_token,
        "lease_expires_at": job.lease_expires_at,
        "ack_by": job.ack_by,
        "traceparent": job.traceparent,
    }


def _checkpoint(job: Claimed) -> dict[str, Any]:
    """Return the checkpoint in one of its forms. Where there are both, a bridge of an earlier version stored the text
    last: it does not know of the other form."""
    if job.checkpoint_bytes is not None:
        return {"checkpoint": Unread(job.job_id, Document.CHECKPOINT), "checkpoint_upload": None}
    file = job.checkpoint
    told = None if file is None else {**_file(file), "url": job_path(job.job_id, "checkpoint")}
    return {"checkpoint": None, "checkpoint_upload": told}


def _source(job: Claimed) -> dict[str, Any]:
    path = job.source_file_path
    name = remote_name(path, f"{job.job_id}.bin") if is_remote(path) else source_name(path)
    told, sha256 = None, job.source_sha256
    if job.upload is not None:
        name = job.upload.name or f"{job.job_id}.bin"
        told, sha256 = job.upload.media_type, job.upload.sha256
    return {
        "source_name": name,
        "source_size": job.source_size,
        "source_media_type": told or mimetypes.guess_type(name)[0] or "application/octet-stream",
        "source_sha256": _hex(sha256),
    }


def status_view(runtime: Runtime, job: Row[Any]) -> dict[str, Any]:
    """Return a schemas.ShortJob."""
    running = job.status == JobState.PROCESSING
    return {
        "job_id": job.id,
        "status": job.status,
        "worker_id": _worker(job),
        **{name: getattr(job, name) for name in SHORT},
        "estimated_completion": estimated_completion(runtime, job) if running else None,
        "progress": job.progress,
        "message": job.message,
        "timeout_at": job.timeout_at,
    }


def job_view(job: Row[Any]) -> dict[str, Any]:
    """Return the schemas.Job of a row with read.WHOLE."""
    return {**JOB.dump(_told(job)), **_documents(job)}


def _told(job: Row[Any]) -> dict[str, Any]:
    told = {name: value for name, value in job._mapping.items() if name not in DOCUMENTS}
    more = {
        "source_file_path": without_query(job.source_file_path),
        "source_fetch": job.source_fetch or BRIDGE,
        "priority": asked_priority(job),
    }
    return {**told, "job_id": job.id, "worker_id": _worker(job), **more}


def _documents(job: Row[Any]) -> dict[str, Any]:
    return {"task_options": _document(job, Document.TASK_OPTIONS), **_beside_content(job)}


def result_view(stored: Row[Any], file: Row[Any] | None) -> dict[str, Any]:
    """Return the schemas.StoredResult of a row with read.RESULT; `file`: the upload that is its text, if any."""
    content = _document(stored, Document.CONTENT) if file is None else UnreadFile(file.id, file.length)
    return {"content": content, **_beside_content(stored)}


def artifact_view(file: Row[Any]) -> dict[str, Any]:
    """Return a schemas.artifacts.Artifact."""
    return {"name": file.name, **_file(file)}


def _file(file: Row[Any]) -> dict[str, Any]:
    return {"size": file.length, "media_type": file.media_type, "sha256": bytes(file.sha256).hex()}


def _beside_content(row: Row[Any]) -> dict[str, Any]:
    took = row.processing_time
    return {
        "metadata": _document(row, Document.METADATA),
        "processing_time": None if took is None else orjson.Fragment(took),
    }


def _document(row: Row[Any], name: Document) -> Any:
    """Return a document of a row with bridge.documents.shown(name): JSON as its text, or Unread."""
    text, size = row._mapping[name], row._mapping[size_of(name)]
    if size is None:
        return None
    if size > AT_ONCE:
        return Unread(row.id, name)
    return text if name is Document.CONTENT else orjson.Fragment(text)


def whole_view(job: Row[Any], history: History, result: Standing) -> dict[str, Any]:
    """Return the schemas.WholeJob of a row with read.WHOLE."""
    by_attempt: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for refusal in history.refusals:
        by_attempt[refusal.attempt].append(dict(refusal._mapping))
    ended = [{**_with_key(row, history), "refusals": by_attempt.pop(row.attempt, [])} for row in history.attempts]
    told = {
        **_told(job),
        "attempts": ended,
        "attempts_before": history.attempts_before,
        "refusals": [refusal for its in by_attempt.values() for refusal in its],
        "requests": [_with_key(row, history) for row in history.requests],
        "requests_before": history.requests_before,
        "result": None if result.size is None else {"size": result.size, "sha256": _hex(result.sha256)},
        "artifacts": result.artifacts,
    }
    return {**WHOLE_JOB.dump(told), **_documents(job)}


def worker_view(hand: WorkerInfo) -> dict[str, Any]:
    """Return a schemas.ShownWorker."""
    return {
        "worker_id": hand.worker_id,
        "key": None if hand.key is None else hand.key._asdict(),
        "content_types": list(hand.content_types),
        "denied_content_types": list(hand.denied_content_types),
        "last_seen": hand.last_seen,
        "jobs_in_hand": hand.jobs_in_hand,
        "slots_busy": hand.slots.busy,
        "slots_free": hand.slots.free,
        "facts": hand.facts._asdict(),
        "job_ids": list(hand.job_ids),
        "paused": None if hand.pause is None else {name: getattr(hand.pause, name) for name in PAUSE},
    }


def _hex(sha256: bytes | None) -> str | None:
    return None if sha256 is None else bytes(sha256).hex()


def _with_key(row: Row[Any], history: History) -> dict[str, Any]:
    """Return the row and the key of its `key_id` (prefix, name); None for requests of a bridge without keys."""
    return {**row._mapping, "key": history.keys.get(row.key_id)}


def _worker(job: Row[Any]) -> str | None:
    """Return the job's worker; a pending job has none."""
    return None if job.status == JobState.PENDING else job.worker_id
