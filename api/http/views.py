"""Rows as wire shapes (api/schemas/)."""

import mimetypes
from collections import defaultdict
from typing import Any

import orjson
from flask import Response
from sqlalchemy import Row

from bridge.insight.durations import estimated_completion
from bridge.jobs.claim import Claimed
from bridge.jobs.read import History
from bridge.jobs.source_files import source_name
from bridge.names import download_path
from bridge.queues import RANKS
from bridge.runtime import Runtime
from models.state import JobState, Priority

FIRST = ("job_id", "source_file_url", "content_type", "task_options")  # of the first job, beside the list
NOTHING: dict[str, Any] = {**dict.fromkeys(FIRST), "jobs": []}


def json_response(body: Any) -> Response:
    """A 200 made by orjson: what is polled often is not dumped through a schema."""
    return Response(orjson.dumps(body), content_type="application/json")


def asked_priority(job: Row[Any]) -> Priority:
    """What a job was created with; its age may have raised it since."""
    return RANKS[job.priority if job.asked_priority is None else job.asked_priority]


def poll_answer(claimed: list[Claimed]) -> dict[str, Any]:
    """schemas.PollAnswer; `task_options` goes through as the text that it is stored as."""
    jobs = [
        {
            "job_id": job.job_id,
            "source_file_url": download_path(job.job_id),
            "source_name": (name := source_name(job.source_file_path)),
            "source_size": job.source_size,
            "source_media_type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "content_type": job.content_type,
            "task_options": orjson.Fragment(job.task_options),
            "attempt": job.attempt,
            "retry_count": job.retry_count,
            "priority": RANKS[job.priority],
            "timeout_at": job.timeout_at,
            "lease_token": job.lease_token,
            "lease_expires_at": job.lease_expires_at,
            "ack_by": job.ack_by,
        }
        for job in claimed
    ]
    if not jobs:
        return NOTHING
    return {**{name: jobs[0][name] for name in FIRST}, "jobs": jobs}


def status_view(runtime: Runtime, job: Row[Any]) -> dict[str, Any]:
    """schemas.ShortJob"""
    running = job.status == JobState.PROCESSING
    return {
        "job_id": job.id,
        "status": job.status,
        "worker_id": _worker(job),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "error_message": job.error_message,
        "retry_count": job.retry_count,
        "estimated_completion": estimated_completion(runtime, job) if running else None,
        "content_type": job.content_type,
        "attempt": job.attempt,
        "progress": job.progress,
        "message": job.message,
        "timeout_at": job.timeout_at,
    }


def job_view(job: Row[Any]) -> dict[str, Any]:
    """schemas.Job"""
    result = job.result_data or {}
    row = dict(job._mapping)
    return {
        **{name: value for name, value in row.items() if name not in ("lease_token", "claim_id")},
        "job_id": job.id,
        "worker_id": _worker(job),
        "priority": asked_priority(job),
        "metadata": result.get("metadata"),
        "processing_time": result.get("processing_time"),
    }


def whole_view(job: Row[Any], history: History) -> dict[str, Any]:
    """schemas.WholeJob"""
    by_attempt: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for refusal in history.refusals:
        by_attempt[refusal.attempt].append(dict(refusal._mapping))
    ended = [{**dict(row._mapping), "refusals": by_attempt.pop(row.attempt, [])} for row in history.attempts]
    rest = [refusal for its in by_attempt.values() for refusal in its]
    requests = [dict(row._mapping) for row in history.requests]
    return {
        **job_view(job),
        "attempts": ended,
        "attempts_before": history.attempts_before,
        "refusals": rest,
        "requests": requests,
        "requests_before": history.requests_before,
    }


def _worker(job: Row[Any]) -> str | None:
    """The worker of a job that waits is nobody."""
    return None if job.status == JobState.PENDING else job.worker_id
