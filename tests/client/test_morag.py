"""MoRAG's callers against a running bridge: its callers as they are documented, and those of examples/morag."""

import base64
import json
import os
import subprocess
import sys
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import requests

from bridge.cli.local.checkout import ROOT
from tests.support.client import ok
from tests.support.waiting import wait_until

MORAG = ROOT / "examples" / "morag"


@pytest.fixture
def creator(client, monkeypatch):
    monkeypatch.setenv("MORAG_API_BASE_URL", client.url)
    monkeypatch.setenv("MORAG_API_KEY", client.key)
    monkeypatch.setenv("MORAG_REMOTE_CONVERSION_ENABLED", "true")
    monkeypatch.syspath_prepend(str(MORAG))
    from remote_job_creator import RemoteJobCreator

    return RemoteJobCreator()


def asked(path, content_type="audio", task="celery-1"):
    options = {"remote": True, "metadata": {"source": "upload"}}
    return SimpleNamespace(
        source_file_path=str(path),
        content_type=content_type,
        task_options=options,
        ingestion_task_id=task,
        timeout_seconds=None,
    )


def test_the_requests_of_morags_published_converter_and_creator_are_answered_as_it_reads_them(client):
    """No lease, no token, no `wait`: the words that its code sends, and the members that it looks at."""
    api, headers = f"{client.url}/api/v1/remote-jobs", {"Authorization": f"Bearer {client.key}"}
    body = {
        "source_file_path": client.source(b"sound"),
        "content_type": "audio",
        "task_options": {"webhook_url": "", "metadata": {}},
        "ingestion_task_id": "celery-1",
    }
    created = requests.post(f"{api}/", json=body, headers=headers, timeout=30)
    assert (created.status_code, created.json()["status"]) == (200, "pending")
    job_id = created.json()["job_id"]
    params: dict[str, Any] = {"worker_id": "morag-1", "content_types": "audio,video", "max_jobs": 1}
    polled = requests.get(f"{api}/poll", params=params, headers=headers, timeout=30)
    job = polled.json()
    assert (polled.status_code, job["job_id"], job["content_type"]) == (200, job_id, "audio")
    assert job["task_options"] == body["task_options"]
    file = requests.get(client.url + job["source_file_url"], headers=headers, timeout=300, stream=True)
    assert (file.status_code, file.content) == (200, b"sound")
    status = ok(requests.get(f"{api}/{job_id}/status", headers=headers, timeout=10))
    assert (status["status"], status["worker_id"]) == ("processing", "morag-1")
    assert status["started_at"]
    assert status["estimated_completion"]
    result = {"success": True, "content": "hello", "metadata": {}, "processing_time": 1.5}
    sent = requests.put(f"{api}/{job_id}/result", json=result, headers=headers, timeout=60)
    assert (sent.status_code, sent.json()) == (200, {"status": "completed", "ingestion_continued": True})
    assert ok(requests.get(f"{api}/{job_id}/status", headers=headers, timeout=10))["error_message"] is None
    assert requests.get(f"{client.url}/health", headers=headers, timeout=10).status_code == 200


def test_morags_failure_report_is_a_retry_here_and_a_failure_when_none_is_left(client):
    job_id = client.create("audio", max_retries=0)
    ok(client.poll(worker_id="morag-1"))
    body = {"success": False, "error_message": "Failed to download source file"}
    assert ok(client.put(f"{job_id}/result", body))["status"] == "failed"


def test_the_creator_makes_one_job_of_an_ingestion_task_and_waits_for_it(creator, client, tmp_path):
    assert creator.should_use_remote_processing("audio", True)
    assert not creator.should_use_remote_processing("document", True)
    here, elsewhere = client.source(), tmp_path / "far.wav"
    elsewhere.write_bytes(b"sound")
    for number, path in enumerate((here, elsewhere)):
        request = asked(path, task=f"celery-{number}")
        job_id = creator.create_remote_job(request)
        assert creator.create_remote_job(request) == job_id
        job = client.job(job_id)
        assert (job["timeout_seconds"], job["task_options"]) == (3600, request.task_options)
    assert len(ok(client.get(""))["jobs"]) == 2
    assert creator.create_remote_job(asked("/nosuch", task="other")) is None

    def convert():
        for _ in range(2):
            ok(client.result(client.claim(), content="hello", processing_time=2.0))

    worker = Thread(target=convert)
    worker.start()
    assert creator.wait_for_remote_job_completion(job_id)["status"] == "completed"
    worker.join()
    assert creator.get_remote_job_result(job_id)["content"] == "hello"


def test_a_job_that_is_not_waited_for_any_more_is_cancelled(creator, client):
    job_id = creator.create_remote_job(asked(client.source()))
    assert creator.get_remote_job_result(job_id) is None
    assert creator.wait_for_remote_job_completion(job_id, timeout_seconds=0) is None
    assert client.status(job_id) == "cancelled"
    assert creator.wait_for_remote_job_completion(job_id) is None


# The adapter of outcomes.

RUN = "import json, sys; from bridge_outcomes import receive; [receive(**one) for one in json.load(sys.stdin)]"


@pytest.fixture
def adapter(bridge, client, servers):
    """Pass outcomes to the adapter; return what it sends to MoRAG and the bridge, as (task, arguments)."""
    broker = servers.redis_url.rpartition("/")[0] + "/999"
    environment = {
        **os.environ,
        "MORAG_BRIDGE_BROKER_URL": broker,
        "MORAG_API_BASE_URL": client.url,
        "MORAG_API_KEY": client.key,
    }

    def run(*outcomes):
        with redis.Redis.from_url(broker, decode_responses=True) as memory:
            subprocess.run(
                [sys.executable, "-c", RUN], cwd=MORAG, env=environment, input=json.dumps(outcomes), text=True,
                check=True, timeout=120,
            )  # fmt: skip
            told = [json.loads(one) for one in reversed(memory.lrange("celery", 0, -1))]
            confirmed = memory.llen("bridge.outcomes")
            memory.delete("celery", "bridge.outcomes")
        decoded = [(one["headers"]["task"], json.loads(_body(one))[0]) for one in told]
        return decoded, confirmed

    return run


def _body(message):

    return base64.b64decode(message["body"])


def outcome_of(bridge, job_id):
    """Return what the bridge itself has sent for a job."""
    with redis.Redis.from_url(bridge.settings.require("broker_url"), decode_responses=True) as broker:

        def look():
            for one in broker.lrange("nobody", 0, -1):
                if job_id in one:
                    return json.loads(_body(json.loads(one)))[1]
            return None

        return wait_until(look, "the outcome")


def test_outcomes_become_morags_two_tasks_each_once(adapter, bridge, client):
    fields = {"ingestion_task_id": "celery-1", "task_options": {"chunk_size": 5}, "max_retries": 0}
    good = client.create("audio", **fields)
    ok(client.result(client.claim(), content="hello", metadata={"speakers": 2}, processing_time=1.5))
    bad = client.create("audio", **fields)
    ok(client.result(client.claim(), success=False, error_message="no speech", retryable=False))
    completed, failed = outcome_of(bridge, good), outcome_of(bridge, bad)
    told, confirmed = adapter(completed, failed, completed)
    result = {"success": True, "content": "hello", "metadata": {"speakers": 2}, "processing_time": 1.5}
    assert told == [
        ("morag.ingest_tasks.continue_ingestion_after_remote_processing", ["celery-1", result, {"chunk_size": 5}]),
        (
            "morag.ingest_tasks.handle_remote_job_failure",
            ["celery-1", {"error_message": "no speech", "retry_count": 0, "job_id": bad}],
        ),
    ]
    assert confirmed == 3


def test_a_long_text_is_fetched_and_an_unserved_job_is_cancelled(adapter, bridge, client):
    fields = {"ingestion_task_id": "celery-1"}
    long = client.create("audio", **fields)
    text = "a long text\n" * 25_000
    ok(client.result(client.claim(), content=text))
    told = outcome_of(bridge, long)
    assert told["content"] is None
    unserved, wanted = client.create("audio", **fields), client.create("audio", **fields)
    said = {"n": 1, "status": "unserved", "success": False, "ingestion_task_id": "celery-1"}
    tasks, _ = adapter(
        told,
        {**said, "job_id": unserved},
        {**said, "job_id": wanted, "task_options": {"fallback_to_local": False}},
        {**said, "job_id": wanted, "n": 0, "status": "batch_ended"},
    )
    assert [arguments[1]["content"] for _, arguments in tasks] == [text]
    assert (client.status(unserved), client.status(wanted)) == ("cancelled", "pending")
