"""The way out: every outcome reaches the pipeline's own task, at least once, under a task ID that stays."""

import hashlib
import uuid
from dataclasses import replace
from datetime import datetime

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from bridge.jobs.cancel import cancel
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields
from bridge.outbox import outcomes
from bridge.runtime import Runtime
from tests.support.broker import delivered, messages, outcome
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
    recorded = bridge.sql("SELECT created_at FROM continuations WHERE job_id = :id", id=job_id)[0].created_at
    assert datetime.fromisoformat(message.kwargs.pop("recorded_at")) == recorded
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


def fail(bridge, client, job_id):
    ok(client.result(client.claim(), success=False, error_message="no sound in it", retryable=False))


def time_out(bridge, client, job_id):
    bridge.sql("UPDATE remote_jobs SET timeout_at = now() WHERE id = :id", id=job_id)


def exceed_the_deadline(bridge, client, job_id):
    ok(client.heartbeat(client.claim()))
    time_out(bridge, client, job_id)


def cancel_it(bridge, client, job_id):
    ok(client.post(f"{job_id}/cancel"))


@pytest.mark.parametrize(
    ("end", "status", "why"),
    [
        (fail, "failed", "no sound in it"),
        (time_out, "timeout", "queue clock"),
        (exceed_the_deadline, "timeout", "deadline"),
        (cancel_it, "cancelled", "Cancelled"),
    ],
)
def test_every_terminal_state_is_continued_with_its_reason(bridge, client, end, status, why):
    job_id = client.create()
    end(bridge, client, job_id)
    kwargs = delivered(bridge, job_id)[0].kwargs
    assert (kwargs["status"], kwargs["success"], kwargs["content"]) == (status, False, None)
    assert why in kwargs["error_message"]


def test_n_counts_the_terminal_states_of_a_job(bridge, client):
    job_id = client.create()
    ok(client.post(f"{job_id}/cancel"))
    ok(client.post(f"{job_id}/retry"))
    ok(client.result(client.claim()))
    found = delivered(bridge, job_id, 2)
    assert {message.id: (message.kwargs["n"], message.kwargs["status"]) for message in found} == {
        f"continue-{job_id}-1": (1, "cancelled"),
        f"continue-{job_id}-2": (2, "completed"),
    }


@pytest.mark.parametrize(
    "content", ["", "ä" * 131_072, '{"a": "\\u0001"}\n\t\u2028'], ids=["empty", "as long as it may be", "odd"]
)
def test_content_comes_whole_up_to_its_bound(bridge, client, content):
    job_id = client.create()
    ok(client.result(client.claim(), content=content))
    assert delivered(bridge, job_id)[0].kwargs["content"] == content


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
    deaf = replace(_core(bridge), nudge=lambda job_ids: asked.extend(job_ids))
    cancel(deaf, KEY._replace(tenant=client.tenant), job_id)
    assert asked == [job_id]
    assert delivered(bridge, job_id)[0].kwargs["status"] == "cancelled"


def _core(bridge) -> Runtime:
    from bridge.mirror.lists import Mirror

    mirror = Mirror(bridge.settings.require("redis_url"), bridge.settings.redis_prefix, f"test-{uuid.uuid4().hex}")
    return Runtime(bridge.settings, bridge.engine, mirror, lambda job_ids: None)


def created(runtime) -> str:
    place = runtime.settings.source_roots[0] / "source.bin"
    place.write_bytes(b"source")
    fields = {"source_file_path": str(place), "content_type": "audio", "ingestion_task_id": "t"}
    return str(enqueue(runtime, "default", CreateFields().load(fields)).job_id)


def rows(runtime, statement, **parameters):
    with runtime.engine.begin() as connection:
        done = connection.exec_driver_sql(statement, parameters)
        return list(done) if done.returns_rows else []


def test_while_the_broker_refuses_the_delays_grow_and_the_reason_is_kept(own_servers, runtime):
    broker = own_servers(postgres=False)
    pipeline = Celery("bridge", broker=broker.redis_url, set_as_current=False)
    pipeline.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0}

    def send(task_id, kwargs, tenant):
        pipeline.send_task("receive", kwargs=kwargs, task_id=task_id, queue="q", retry=False, ignore_result=True)

    def deliver():
        rows(runtime, "UPDATE continuations SET next_at = now() WHERE next_at IS NOT NULL")
        sent = outcomes.deliver(runtime, send, (OperationalError,))
        return sent, rows(
            runtime, "SELECT extract(epoch FROM next_at - now()) AS delay, last_error, tries FROM continuations"
        )[0]

    cancel(runtime, KEY, created(runtime))
    broker.redis.stop()
    delays = []
    for tries in (1, 3, 5, 7, 40):
        rows(runtime, "UPDATE continuations SET tries = %(tries)s", tries=tries - 1)
        sent, row = deliver()
        assert (sent, row.tries, row.last_error) == (0, tries, "ConnectionError")
        delays.append(float(row.delay))
    assert delays == sorted(delays)
    assert delays[0] < 3
    assert delays[3] > 60
    assert delays[4] <= outcomes.LONGEST_DELAY_SECONDS
    broker.redis.start()
    sent, row = deliver()
    assert (sent, row.delay, row.last_error) == (1, None, None)
    assert len(messages(broker.redis_url, "q")) == 1


def test_without_a_task_of_the_pipeline_nothing_is_recorded_and_the_worker_is_told(own_bridge):
    bridge = own_bridge(celery=False, beat=False)
    client = bridge.client()
    client.create()
    assert ok(client.result(client.claim())) == {"status": "completed", "ingestion_continued": False}
    assert bridge.sql("SELECT 1 FROM continuations") == []
