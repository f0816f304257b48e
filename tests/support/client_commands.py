"""What a client command printed, and jobs for it to show."""

import json
import subprocess
from typing import Any

from tests.support.client import Client, ok
from tests.support.running import Running
from tests.support.waiting import wait_until


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(said(done))
    return shown


def lines(done: subprocess.CompletedProcess[str], status: int) -> list[str]:
    """Return what a command that did not do it said of it on standard error."""
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def end(client: Client, bridge: Running, how: str) -> str:
    """Return a job that came to this end."""
    job_id = client.create()
    if how == "cancelled":
        ok(client.post(f"{job_id}/cancel"))
    elif how == "timeout":
        bridge.sql("UPDATE remote_jobs SET timeout_at = now() WHERE id = :id", id=job_id)
        wait_until(lambda: client.status(job_id) == "timeout", "the queue clock")
    else:
        ok(client.result(client.claim(), success=how == "completed", retryable=False, error_message="It is empty."))
    return job_id
