"""A bare route under the same server: what gunicorn, gevent and Flask cost alone, with no bridge behind them.

It answers create, poll and result with the same shapes at once, so that bench/load_client runs against it unchanged.
"""

import itertools
from typing import Any

from flask import Flask, request

app = Flask(__name__)
_BASE = "/api/v1/remote-jobs"
_numbers = itertools.count()


def _job_id() -> str:
    return f"00000000-0000-7000-8000-{next(_numbers) % 10**12:012d}"


@app.post(f"{_BASE}/")
def create() -> dict[str, Any]:
    """A create's answer."""
    request.get_json()
    return {"job_id": _job_id(), "status": "pending", "created_at": "2026-01-01T00:00:00+00:00"}


@app.get(f"{_BASE}/poll")
def poll() -> dict[str, Any]:
    """A claim's answer."""
    job = {"job_id": _job_id(), "source_file_url": "/", "content_type": "bench", "task_options": {}}
    return {**job, "jobs": [job]}


@app.put(f"{_BASE}/<job_id>/result")
def result(job_id: str) -> dict[str, Any]:
    """A result's answer."""
    request.get_json()
    return {"status": "completed", "ingestion_continued": False, "job_id": job_id}
