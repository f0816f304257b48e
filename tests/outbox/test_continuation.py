"""The way out: every outcome reaches the pipeline's own task, at least once, under a task ID that stays."""

import hashlib
import uuid
from datetime import datetime

import pytest

from bridge.jobs.cancel import cancel
from bridge.mirror.lists import Mirror
from bridge.runtime import Runtime
from tests.support.broker import delivered, outcome
from tests.support.client import ok
from tests.support.core import KEY
from tests.support.waiting import wait_until


def test_the_pipelines_task_gets_what_the_contract_names_and_nothing_else(bridge, client):
    job_id = client.create("audio", ingestion_task_id="file-1", task_options={"language": "de"})
    ok(client.result(client.claim(), content="text", metadata={"a": [1, None]}, processing_time=2.5))
    message = delivered(bridge, job_id)[0]
    assert message.task == "pipeline.receive"
    assert message.id == f"continue-{job_id}-1"
    assert message.headers["tenant"] == client.tenant
    assert datetime.fromisoformat(message.kwargs.pop("recorded_at")) == outcome(bridge, job_id).created_at
    assert message.kwargs == {
        "job_id": job_id,
        "ingestion_task_id": "file-1",
        "content_type": "audio",
        "status": "completed",
        "success": True,
        "content": "text",
        "metadata": {"a": [1, None]},
        "processing_time": 2.5,
        "error_message": None,
        "retry_count": 0,
        "task_options": {"language": "de"},
        "n": 1,
        "result_url": None,
        "result_size": 4,
        "result_sha256": None,
        "artifacts": [],
        "artifacts_count": 0,
    }
    assert wait_until(lambda: outcome(bridge, job_id).sent_at, "the delivery to be noted")
    assert outcome(bridge, job_id).next_at is None


@pytest.mark.parametrize(
    "content", ["", "ä" * 131_072, '{"a": "\\u0001"}\n\t\u2028'], ids=["empty", "as long as it may be", "odd"]
)
def test_content_comes_whole_up_to_its_bound(bridge, client, content):
    job_id = client.create()
    assert ok(client.result(client.claim(), content=content))["ingestion_continued"] is True
    assert delivered(bridge, job_id)[0].kwargs["content"] == content
    assert ok(client.get(f"{job_id}/result"))["content"] == content


def test_a_longer_content_is_named_and_lies_where_it_is_named(bridge, client):
    content = "ä" * 2_000_000  # 12 MB as JSON
    job_id = client.create()
    ok(client.result(client.claim(), content=content))
    told = delivered(bridge, job_id)[0].kwargs
    assert (told["content"], told["result_size"]) == (None, 4_000_000)
    text = client.get(told["result_url"], headers={"Accept": "text/plain"}).content
    assert (text.decode(), hashlib.sha256(text).hexdigest()) == (content, told["result_sha256"])


def test_an_outcome_whose_nudge_was_lost_is_found_by_beat(bridge, client):
    job_id = client.create()
    asked: list[str] = []
    mirror = Mirror(bridge.settings.require("redis_url"), bridge.settings.redis_prefix, f"test-{uuid.uuid4().hex}")
    deaf = Runtime(bridge.settings, bridge.engine, mirror, lambda job_ids: asked.extend(job_ids))
    cancel(deaf, KEY._replace(tenant=client.tenant), job_id)
    assert asked == [job_id]
    assert delivered(bridge, job_id)[0].kwargs["status"] == "cancelled"
