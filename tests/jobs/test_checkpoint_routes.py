"""Checkpoints that were uploaded, over HTTP: named, told of in each claim, downloaded by the job's holder."""

import hashlib
import os

import pytest

from tests.support.client import ok, refused
from tests.support.of_an_attempt import sent
from tests.support.tus import announce, append


@pytest.fixture
def job(client):
    return client.held("checkpoint")


def put(client, job, body):
    return client.put(f"{job['job_id']}/checkpoint", body, headers={"X-Lease-Token": job["lease_token"]})


def test_bodies_that_name_no_one_checkpoint_are_refused_and_change_nothing(client, job):
    upload = sent(client, job, b"kept")
    ok(put(client, job, {"checkpoint_upload": upload}))
    bodies = [
        {}, {"checkpoint": None, "checkpoint_upload": None}, {"checkpoint": "x", "checkpoint_upload": upload},
        {"checkpoint_upload": 5}, {"checkpoint_upload": [upload]}, {"checkpoint_upload": ""},
        {"checkpoint_upload": "upload:" + upload}, {"checkpoint_upload": upload.upper()},
        {"checkpoint_upload": upload[:-1] + "'"}, {"checkpoint_upload": "x" * 100_000},
    ]  # fmt: skip
    for body in bodies:
        refused(put(client, job, body), 422, "validation")
    unfinished = announce(client, 9, {"X-Lease-Token": job["lease_token"]}, job_id=job["job_id"])
    problem = refused(put(client, job, {"checkpoint_upload": unfinished.rpartition("/")[2]}), 422, "validation")
    assert list(problem["errors"]) == ["checkpoint_upload"]
    path, token = f"{job['job_id']}/checkpoint", {"X-Lease-Token": job["lease_token"]}
    assert client.get(path, headers=token).content == b"kept"


def test_every_claim_tells_of_it_and_its_holder_downloads_it(client, job):
    whole = os.urandom(3_000_000)
    assert job["checkpoint_upload"] is None
    upload = sent(client, job, whole, filename="Größe.bin", filetype="audio/x-state")
    path = f"{job['job_id']}/checkpoint"
    refused(client.get(path, headers={"X-Lease-Token": job["lease_token"]}), 404, "not_found")
    assert ok(put(client, job, {"checkpoint_upload": upload}))["status"] == "processing"
    ok(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))
    told = {"size": len(whole), "media_type": "audio/x-state", "sha256": hashlib.sha256(whole).hexdigest(),
            "url": f"/api/v1/remote-jobs/{path}"}  # fmt: skip
    claims = []
    before = client.held("next", "w2")
    asked = {"worker_id": "w2", "content_types": "checkpoint", "max_jobs": 5, "lease": 60, "claim_id": "c1"}
    body = {"success": True, "content": "x", "lease_token": before["lease_token"]}
    answer = ok(client.put(f"{before['job_id']}/result", body, params={"next": "true", "wait": 20, **asked}))
    claims.append(answer["next"])
    claims.append(ok(client.get("poll", params=asked)))  # the same claim again
    jobs = [claim["jobs"][0] for claim in claims]
    ok(client.post(f"{job['job_id']}/release", {"lease_token": jobs[0]["lease_token"]}))
    jobs.append(ok(client.post(f"{job['job_id']}/claim", {"worker_id": "w3", "lease": 60, "claim_id": "c2"})))
    assert [(one["checkpoint"], one["checkpoint_upload"]) for one in jobs] == [(None, told)] * 3

    token = {"X-Lease-Token": jobs[2]["lease_token"]}
    head = client.request("HEAD", path, headers=token)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(whole)))
    assert client.job(job["job_id"])["acknowledged_at"] is None
    got = client.get(path, headers=token)
    assert (got.content == whole, got.headers["Content-Type"]) == (True, "application/octet-stream")
    assert client.job(job["job_id"])["acknowledged_at"] is not None
    assert got.headers["ETag"] == f'"{told["sha256"]}"'
    assert got.headers["Repr-Digest"].startswith("sha-256=:")
    assert "filename*=UTF-8''Gr%C3%B6%C3%9Fe.bin" in got.headers["Content-Disposition"]
    part = client.get(path, headers={**token, "Range": "bytes=2999990-", "If-Range": got.headers["ETag"]})
    assert (part.status_code, part.content) == (206, whole[-10:])
    assert client.get(path, headers={**token, "If-None-Match": got.headers["ETag"]}).status_code == 304
    assert client.get(path, headers={**token, "Range": "bytes=3000000-"}).status_code == 416
    refused(client.get(path, headers={"X-Lease-Token": job["lease_token"]}), 409, "lease_lost")
    ok(client.result(jobs[2]))
    refused(client.get(path, headers=token), 409, "lease_lost")
    assert ok(client.get(f"{job['job_id']}/artifacts"))["items"] == []


def test_an_upload_of_nothing_is_a_checkpoint_too(client, job):
    ok(put(client, job, {"checkpoint_upload": sent(client, job, b"")}))
    got = client.get(f"{job['job_id']}/checkpoint", headers={"X-Lease-Token": job["lease_token"]})
    assert (got.status_code, got.content) == (200, b"")


def test_the_store_gives_no_bytes_that_came_after_the_lease(client, job):
    token = {"X-Lease-Token": job["lease_token"]}
    place = announce(client, 4, token, job_id=job["job_id"])
    ok(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))
    refused(append(client, place, 0, b"late", token), 409, "lease_lost")
    refused(put(client, job, {"checkpoint_upload": place.rpartition("/")[2]}), 409, "lease_lost")
