"""Uploads of an attempt: sent over HTTP by its worker, or made in the core."""

from typing import Any
from uuid import UUID

from bridge.blobs import append_to_upload, uploads
from bridge.caller import Caller
from bridge.jobs import job_log
from bridge.jobs.claim import Claimed
from tests.support.client import Client
from tests.support.core import KEY, OTHER_KEY, Core
from tests.support.tus import announce, append


def sent(client: Client, job: dict[str, Any], content: bytes, **metadata: str) -> str:
    """Upload this for a job as its worker; return the upload's ID."""
    token = {"X-Lease-Token": job["lease_token"]}
    place = announce(client, len(content), token, job_id=job["job_id"], **metadata)
    assert append(client, place, 0, content, token).status_code == 204
    return place.rpartition("/")[2]


class Work:
    """Claims and their uploads."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.runtime = core.runtime

    def upload(
        self, job: Claimed | None = None, content: bytes = b"text", key: Caller = KEY, length: int | None = None
    ) -> str:
        whose: dict[str, Any] = {} if job is None else {"job_id": job.job_id, "attempt": job.attempt}
        announced = uploads.Announced(len(content) if length is None else length, **whose)
        began = uploads.announce(self.runtime, self.core.of(key), announced)
        return str(append_to_upload.append(self.runtime, began, iter([content])).id)

    def checkpoints(self, job: Claimed) -> None:
        """Store a checkpoint of each form; the text is the last."""
        its = (self.runtime, self.core.of(KEY), str(job.job_id))
        job_log.save_upload(*its, self.upload(job), job.lease_token)
        job_log.saved_upload(*its, job.lease_token)
        job_log.save(*its, "a checkpoint", job.lease_token)

    def submit(self, job: Claimed, **said: Any) -> str:
        return self.core.result(job, content=None, **said).status


def foreign_uploads(work: Work, job: Claimed, other: Claimed) -> dict[str, str]:
    """Return what the attempt of `job` may not name, by why."""
    return {
        "a producer's": work.upload(),
        "another job's": work.upload(other),
        "another key's": work.upload(job, key=OTHER_KEY),
        "another tenant's": work.upload(job, key=Caller(KEY.key_id, "elsewhere")),
        "an earlier attempt's": work.upload(job._replace(attempt=0)),
        "unfinished": work.upload(job, length=5),
        "unknown": str(UUID(int=2**127 - 1)),
        "no ID": "../x",
    }
