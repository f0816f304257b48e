"""What the reference workers of a chaos run do with a file: text that names the job and the attempt."""

from pathlib import Path

from bridge_worker import Job, Result


def content(job_id: str, attempt: int) -> str:
    """Return the only text that such a worker submits for an attempt."""
    return f"process {job_id} {attempt}"


def handle(job: Job, path: Path) -> Result:
    """Return the handler for bridge-worker."""
    path.read_bytes()
    return Result(content(job.id, job.attempt))
