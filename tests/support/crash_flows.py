"""What leads past each crash point: the life of a job, each step of it repeated until it is answered."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from celery.exceptions import TimeoutError as NoAnswer

from bridge import names
from bridge.names import API_ROOT, KEYS_BASE
from tests.support.client import Client, ok
from tests.support.crash_site import Site, new_name
from tests.support.of_an_attempt import sent
from tests.support.waiting import wait_until


def to_the_end(site: Site, job_id: str) -> list[str]:
    """Do the job and see its outcome arrive."""
    site.work(job_id)
    site.handed_over(job_id)
    return [job_id]


def life(site: Site) -> list[str]:
    return to_the_end(site, site.create())


def parked_life(site: Site) -> list[str]:
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(site.poll)
        wait_until(lambda: "bridge_parked_polls 1.0" in site.client.get("/metrics").text, "the poll to be parked")
        job_id = site.create()
        for job in polled.result():
            site.do(job)
    return to_the_end(site, job_id)


def unmirrored_life(site: Site) -> list[str]:
    """Its ID is lost from Redis: it is claimed from PostgreSQL, where it is looked for and locked first."""
    job_id = site.create()
    prefix = f"{site.bridge.settings.redis_prefix}:{{{site.client.tenant}:audio}}"
    with redis.Redis.from_url(site.bridge.settings.require("redis_url"), decode_responses=True) as mirror:
        mirror.delete(*mirror.scan_iter(f"{prefix}:pending:*"))
    return to_the_end(site, job_id)


def batch(site: Site) -> list[str]:
    """With an outcome of its own, which is one of the job that ended last."""
    body = {"jobs": [site.client.fields() for _ in range(3)], "outcome": True}
    headers = {"Idempotency-Key": new_name()}
    created = ok(site.again(lambda **how: site.client.post("batch", body, headers=headers, **how)))["jobs"]
    job_ids = [str(job["job_id"]) for job in created]
    site.work(*job_ids)
    ended = "SELECT count(*) = 1 FROM continuations WHERE job_id = ANY(CAST(:ids AS uuid[])) AND n = 0"
    site.until(ended, names.BATCHES, "the outcome of the batch", ids=job_ids)
    site.handed_over(*job_ids)
    return job_ids


def named(site: Site) -> list[str]:
    """Let a pipeline do a job itself."""
    job_id = site.create()
    asked = {"worker_id": "pipeline", "lease": 60, "claim_id": new_name()}
    site.do(ok(site.again(lambda **how: site.client.post(f"{job_id}/claim", asked, **how))))
    return to_the_end(site, job_id)


def together(site: Site) -> list[str]:
    """Submit a result together with others."""
    job_id = site.create()
    job = site.claim()
    said = {"job_id": job_id, "success": True, "content": "x", "lease_token": job["lease_token"]}
    ok(site.again(lambda **how: site.client.post(f"{API_ROOT}/results", {"results": [said]}, **how)))
    return to_the_end(site, job_id)


def with_files(site: Site) -> list[str]:
    """Submit a result with an uploaded text and artifact: both are there, or the job still waits for them."""
    job_id = site.create()
    job = site.claim()
    token = {"X-Lease-Token": job["lease_token"]}
    upload = sent(site.client, job, b"text")
    said = {"success": True, "result_upload": upload, "artifacts": [{"name": "a", "upload": upload}]}
    ok(site.again(lambda **how: site.client.put(f"{job_id}/result", said, headers=token, **how)))
    assert ok(site.client.get(f"{job_id}/result"))["content"] == "text"
    assert site.client.get(f"{job_id}/artifacts/a").content == b"text"
    return to_the_end(site, job_id)


def unserved(site: Site) -> list[str]:
    """Nobody asks for it for so long that its pipeline is told; then somebody does it."""
    job_id = site.create(unserved_after_seconds=60)
    site.bridge.sql("UPDATE remote_jobs SET available_at = available_at - interval '1 h',"
                    " unserved_at = unserved_at - interval '1 h' WHERE id = :id", id=job_id)  # fmt: skip
    site.until("SELECT count(*) = 1 FROM continuations WHERE job_id = :id", names.UNSERVED, "its outcome", id=job_id)
    return to_the_end(site, job_id)


def intake(site: Site) -> list[str]:
    """As a pipeline does that asks under the same key until it has the answer."""
    key = new_name()
    fields = {**site.client.fields(), "tenant": site.client.tenant}

    def asked() -> str | None:
        sent = site.bridge.celery.send_task(
            names.ENQUEUE, kwargs={**fields, "idempotency_key": key}, queue=names.QUEUE, expires=60
        )
        try:
            return str(sent.get(timeout=3)["job_id"])
        except NoAnswer:
            return None

    job_id = wait_until(asked, "the pipeline's answer")
    return to_the_end(site, job_id)


def released(site: Site) -> list[str]:
    job_id = site.create()
    job = site.claim()
    body = {"lease_token": job["lease_token"]}
    assert site.again(lambda **how: site.client.post(f"{job_id}/release", body, **how)).status_code in (200, 409)
    site.bridge.sql("UPDATE remote_jobs SET attempt_ended_at = attempt_ended_at - interval '20 s'"
                    " WHERE id = :id AND attempt_ended_at IS NOT NULL", id=job_id)  # fmt: skip
    return to_the_end(site, job_id)


def cancelled(site: Site) -> list[str]:
    site.expected = "cancelled"
    job_id = site.create()
    site.claim()
    ok(site.again(lambda **how: site.client.post(f"{job_id}/cancel", **how)))
    site.handed_over(job_id)
    return [job_id]


def restarted(site: Site) -> list[str]:
    job_id = site.create(max_retries=0)
    job = site.claim()
    failure = {"success": False, "error_message": "no", "retryable": False, "lease_token": job["lease_token"]}
    site.again(lambda **how: site.client.put(f"{job_id}/result", failure, **how))
    wait_until(lambda: site.status(job_id) == "failed", "the failure")
    ok(site.again(lambda **how: site.client.post(f"{job_id}/retry", **how)))
    return to_the_end(site, job_id)


def expired(site: Site) -> list[str]:
    """Let a worker be silent for longer than its lease."""
    job_id = site.create()
    job = site.claim()
    site.again(lambda **how: site.client.post(f"{job_id}/heartbeat", {"lease_token": job["lease_token"]}, **how))
    site.bridge.sql("UPDATE remote_jobs SET lease_expires_at = now() WHERE id = :id", id=job_id)
    site.until("SELECT status <> 'processing' FROM remote_jobs WHERE id = :id", names.EXPIRE, "its lease", id=job_id)
    return to_the_end(site, job_id)


def bulk(site: Site) -> list[str]:
    """More than fit in a batch."""
    site.expected = "cancelled"
    created = ok(site.client.post("batch", {"jobs": [site.client.fields()] * 600}))["jobs"]
    left = ok(site.again(lambda **how: site.client.post("cancel?status=pending", **how)))
    assert left == {"matched": 100, "changed": 100}, "it goes on where the first one was broken off"
    asked = "SELECT count(*), count(DISTINCT job_id) FROM job_requests WHERE job_id = ANY(CAST(:ids AS uuid[]))"
    job_ids = [str(job["job_id"]) for job in created]
    assert tuple(site.bridge.sql(asked, ids=job_ids)[0]) == (600, 600)
    site.handed_over(*job_ids[:3])
    return job_ids


def due(site: Site) -> list[str]:
    now = site.bridge.sql("SELECT now() + interval '1 second'")[0][0]
    job_id = site.create(available_at=now.isoformat())
    site.until("SELECT mirrored OR status <> 'pending' FROM remote_jobs WHERE id = :id", names.RELEASE_DUE, "its time",
               id=job_id)  # fmt: skip
    return to_the_end(site, job_id)


def promoted(site: Site) -> list[str]:
    job_id = site.create(priority="low")
    site.bridge.sql("UPDATE remote_jobs SET queued_at = queued_at - interval '2 hours' WHERE id = :id", id=job_id)
    site.until("SELECT priority = 1 OR status <> 'pending' FROM remote_jobs WHERE id = :id", names.PROMOTE, "its rise",
               id=job_id)  # fmt: skip
    return to_the_end(site, job_id)


def left_over(site: Site) -> list[str]:
    """Let a process take an ID and die."""
    job_id = site.create()
    prefix = f"{site.bridge.settings.redis_prefix}:{{{site.client.tenant}:audio}}"
    with redis.Redis.from_url(site.bridge.settings.require("redis_url"), decode_responses=True) as mirror:
        assert mirror.lmove(f"{prefix}:pending:normal", f"{prefix}:claimed:dead", "RIGHT", "LEFT") == job_id
        site.swept(lambda: not mirror.exists(f"{prefix}:claimed:dead"), names.RECONCILE, "the ID to be put back")
    return to_the_end(site, job_id)


def rebuilt(site: Site) -> list[str]:
    job_id = site.create()
    prefix = site.bridge.settings.redis_prefix
    with redis.Redis.from_url(site.bridge.settings.require("redis_url"), decode_responses=True) as mirror:
        mirror.delete(f"{prefix}:epoch", *mirror.scan_iter(f"{prefix}:*:pending:*"))
        site.swept(lambda: mirror.exists(f"{prefix}:epoch"), names.RECONCILE, "the mirror to be rebuilt")
    return to_the_end(site, job_id)


def purged(site: Site) -> list[str]:
    (job_id,) = life(site)
    site.bridge.sql("UPDATE remote_jobs SET completed_at = completed_at - interval '2 days' WHERE id = :id", id=job_id)
    site.until("SELECT count(*) = 0 FROM remote_jobs WHERE id = :id", names.PURGE, "the job to be gone", id=job_id)
    return []


def confirmed(site: Site) -> list[str]:
    (job_id,) = life(site)

    def so() -> Any:
        site.bridge.celery.send_task(
            names.CONFIRM, kwargs={"job_id": job_id, "n": 1}, queue=names.QUEUE, ignore_result=True
        )
        return site.bridge.sql("SELECT confirmed_at FROM continuations WHERE job_id = :id", id=job_id)[0][0]

    wait_until(so, "the confirmation")
    return [job_id]


def revoked(site: Site) -> list[str]:
    key = site.bridge.key(site.client.tenant, ("work",))
    job_id = site.create()
    worker = Client(site.bridge.url, key, site.client.files)
    assert [job["job_id"] for job in ok(worker.poll(wait=20, lease=60))["jobs"]] == [job_id]
    path = f"{KEYS_BASE}/{'_'.join(key.split('_')[:2])}"
    ok(site.again(lambda **how: site.client.request("DELETE", path, **how)))
    site.sweep(names.EXPIRE)
    return to_the_end(site, job_id)


def resent(site: Site) -> list[str]:
    (job_id,) = life(site)
    path = f"{API_ROOT}/continuations/resend?job_id={job_id}"
    ok(site.again(lambda **how: site.client.post(path, **how)))
    site.handed_over(job_id)
    return [job_id]
