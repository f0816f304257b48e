"""The client against a running bridge: what a pipeline on another host does with an address and a key."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest

from jobbridge_client import BadSetting, Conflict, Denied, Invalid, JobFailed, NotFound, WaitTimeout
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.scripted_answers import answer, scripted


def test_a_local_file_becomes_a_text(either, client, tmp_path):
    file = tmp_path / "talk ä.html"
    file.write_bytes(b"<p>" + b"x" * 2_000_000)
    seen: list[Any] = []
    job = either("submit", file, "web", task_options={"language": "en"}, priority="high", progress=seen.append)
    claimed = client.claim("web")
    assert (claimed["job_id"], claimed["source_name"]) == (job.job_id, "talk ä.html")
    assert (claimed["source_media_type"], claimed["task_options"]) == ("text/html", {"language": "en"})
    sent = client.get(claimed["source_file_url"], headers={"X-Lease-Token": claimed["lease_token"]})
    assert sent.content == file.read_bytes()
    assert [seen[0].received, seen[-1].received] == [0, file.stat().st_size]
    assert seen[0].upload_id == seen[-1].upload_id
    ok(client.result(claimed, content="the text ü", metadata={"pages": 2}, processing_time=1.5))
    assert either("wait", job).status == "completed"
    result = either("result", job)
    assert (result.text, result.metadata, result.processing_time) == ("the text ü", {"pages": 2}, 1.5)
    whole = either("get", job)
    assert (whole.data["ingestion_task_id"], whole.data["priority"]) == ("talk ä.html", "high")
    assert [attempt["how"] for attempt in whole.data["attempts"]] == ["completed"]


def test_a_create_whose_answer_is_lost_makes_one_job(either, client):
    with FaultProxy.before(client.url) as proxy:
        fault = proxy.cut_on(re.compile(rb"POST /api/v1/remote-jobs "), before=False)
        job = either(
            "create", "audio", ingestion_task_id="7", source_file_path=client.source(), url=proxy.url(client.url)
        )
        assert fault.happened.is_set()
    assert [one.job_id for one in either("jobs")] == [job.job_id]


def test_a_key_of_ones_own_makes_one_job_over_restarts(sdk, client):
    named = {"ingestion_task_id": "7", "source_file_path": client.source(), "idempotency_key": "night-7"}
    assert sdk.create("audio", **named).job_id == sdk.create("audio", **named).job_id
    with pytest.raises(BadSetting, match="idempotency_key"):
        sdk.create("audio", **{**named, "idempotency_key": "a\nb"})
    with pytest.raises(Invalid) as invalid:
        sdk.create("video", **named)
    assert invalid.value.code == "idempotency_mismatch"


def test_a_source_is_named_once_also_at_an_address_and_as_an_upload_of_a_batch(either, sdk, client, tmp_path):
    with pytest.raises(Invalid, match="BRIDGE_SOURCE_ALLOW") as refused:  # off at the bridge of the tests
        either("create", "audio", ingestion_task_id="7", source_url="https://files.example.org/a.pdf")
    assert list(refused.value.fields) == ["source_url"]
    with pytest.raises(Invalid, match="BRIDGE_SOURCE_WORKER_FETCH"):  # so is this
        either("create", "audio", ingestion_task_id="7", source_url="https://x.org/a", source_fetch="worker")
    for none_or_two in ({}, {"source_url": "https://x.org/", "source_file_path": "/x"}):
        with pytest.raises(BadSetting, match="give one of them"):
            either("create", "audio", ingestion_task_id="7", **none_or_two)
    for path, status in (("/api/v1/remote-jobs/statistics", 200), ("/api/v1/remote-jobs/nosuch", 404)):
        reply = either("call", "GET", path)
        assert (reply.status, reply.headers["x-request-id"] != "", reply.body[:1]) == (status, True, b"{")
    for wrong in ("0" * 63, "g" * 64):
        with pytest.raises(Invalid, match="source_sha256"):
            either("create", "audio", ingestion_task_id="7", source_file_path=client.source(), source_sha256=wrong)
    job = either("submit", client.source(b"x"), "audio", source_sha256=hashlib.sha256(b"x").hexdigest())
    assert client.claim(worker_id="w")["job_id"] == job.job_id
    with pytest.raises(Invalid, match="The upload's SHA-256 is"):
        either("submit", client.source(b"x"), "audio", source_sha256="0" * 64)
    (tmp_path / "a.bin").write_bytes(b"bytes")
    sent = sdk.upload(tmp_path / "a.bin")
    named = {"content_type": "audio", "ingestion_task_id": "7", "source_upload": sent}
    batch = either("create_batch", [named, {**named, "source_upload": sent.upload_id}])
    paths = [client.job(job.job_id)["source_file_path"] for job in batch.jobs]
    assert paths == [f"upload:{sent.upload_id}"] * 2


def test_a_batch_is_counted_and_listed(either, client):
    path = client.source()
    jobs = [{"content_type": "audio", "ingestion_task_id": f"{n}", "source_file_path": path} for n in range(3)]
    jobs[1]["available_at"] = datetime.now(UTC) + timedelta(days=1)
    batch = either("create_batch", jobs, outcome=True)
    either("cancel", batch.jobs[2])
    state = either("batch", batch.batch_id)
    assert (state.jobs, state.by_status, state.ended) == (3, {"pending": 2, "cancelled": 1}, False)
    newest_first = [job.job_id for job in reversed(batch.jobs)]
    assert [job.job_id for job in either("jobs")] == newest_first
    page = either("page", limit=2, content_type="audio")
    assert [job.job_id for job in page.jobs] == newest_first[:2]
    assert [job.job_id for job in either("page", cursor=page.next_cursor).jobs] == newest_first[2:]
    assert [job.job_id for job in either("jobs", status="cancelled")] == newest_first[:1]


def test_a_list_of_several_pages_is_yielded_to_its_end(either):
    pages = [
        {"jobs": [{"job_id": str(n), "status": "pending"}], "next_cursor": "more" if n < 2 else None} for n in range(3)
    ]
    with scripted(*(answer("200 OK", json.dumps(page).encode()) for page in pages)) as server:
        assert [job.job_id for job in either("jobs", url=server.url)] == ["0", "1", "2"]
    assert ["cursor=more" in head.split("\r\n")[0] for head in server.heads] == [False, True, True]


def test_waiting_tells_each_state_and_how_it_ended(either, client):
    job_id = client.create("audio", max_retries=0)
    seen = []

    def work():
        claimed = client.claim()
        ok(client.heartbeat(claimed, progress=0.5))
        ok(client.result(claimed, success=False, error_message="no speech", retryable=False))

    def see(job):
        seen.append(job)
        if len(seen) == 1:
            worker.start()

    worker = Thread(target=work)
    with pytest.raises(WaitTimeout) as late:
        either("wait", job_id, timeout=0.1)
    assert late.value.job.status == "pending"
    with pytest.raises(JobFailed, match="failed: no speech") as failed:
        either("wait", job_id, seen=see)
    worker.join()
    assert failed.value.job.error_message == "no speech"
    assert (seen[0].status, seen[-1].status) == ("pending", "failed")
    assert either("wait", job_id, check=False).status == "failed"
    assert either("retry", job_id).status == "pending"
    assert either("cancel", job_id).ended


def test_a_refusal_says_what_was_wrong(either, client, bridge):
    with pytest.raises(Denied) as refused:
        either("status", "x", key="wrong")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    with pytest.raises(NotFound):
        either("status", "nosuch/../job")
    with pytest.raises(Invalid) as invalid:
        either("create", "Web", ingestion_task_id="", source_file_path=client.source())
    assert set(invalid.value.fields) == {"content_type", "ingestion_task_id"}
    assert "content_type" in str(invalid.value)
    job_id = client.create("audio")
    with pytest.raises(Conflict) as conflict:
        either("result", job_id)
    assert conflict.value.code == "not_ready"
    with pytest.raises(Denied):
        either("cancel", job_id, key=bridge.key(client.tenant, ("read",)))
    client.claim()
    with pytest.raises(Conflict):
        either("retry", job_id)


def test_a_retry_whose_answer_is_lost_is_done(sdk, client):
    job_id = client.create("audio")
    sdk.cancel(job_id)
    with FaultProxy.before(client.url) as proxy:
        proxy.cut_on(re.compile(rb"POST /api/v1/remote-jobs/[^ ]+/retry"), before=False)
        worker = Thread(target=client.claim)
        worker.start()
        with type(sdk)(proxy.url(client.url), client.key) as through:
            assert through.retry(job_id).status in ("pending", "processing")
        worker.join()
