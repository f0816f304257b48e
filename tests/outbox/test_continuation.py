"""The way out: every outcome reaches the pipeline's own task, at least once, under a task ID that stays."""

import os
import signal
import uuid
from dataclasses import replace
from datetime import datetime

import psycopg2
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from bridge import names
from bridge.jobs.cancel import cancel, restart
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields
from bridge.jobs.purge import purge
from bridge.outbox import outcomes
from bridge.runtime import Runtime
from tests.support.broker import handed_over, messages
from tests.support.client import ok
from tests.support.core import KEY
from tests.support.waiting import wait_until

OUTCOME = "SELECT * FROM continuations WHERE job_id = :id AND n = :n"


def outcome(bridge, job_id, n=1):
    return bridge.sql(OUTCOME, id=job_id, n=n)[0]


def delivered(bridge, job_id, count=1):
    """The deliveries of a job's outcomes, once there are `count`."""

    def enough():
        bridge.stack.keep_up()  # Celery's worker may end by itself when its broker goes (docs/operations.md)
        found = handed_over(bridge, job_id)
        return found if len(found) >= count else None

    return wait_until(enough, f"{count} deliveries about {job_id}")


def taken(bridge, job_id):
    """The next deliveries of a job's outcomes, taken off the queue by a pipeline that confirms nothing."""
    found = delivered(bridge, job_id)
    with redis.Redis.from_url(bridge.settings.require("broker_url")) as direct:
        direct.delete(bridge.settings.continuation_queue)
    return found


def nudge(bridge):
    """Beat's run, now."""
    bridge.celery.send_task(names.CONTINUE, queue=names.QUEUE, ignore_result=True)


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
    assert {message.id: message.kwargs["status"] for message in found} == {
        f"continue-{job_id}-1": "cancelled",
        f"continue-{job_id}-2": "completed",
    }


def test_an_outcome_that_was_not_sent_before_the_job_ended_again_is_still_told_as_it_was(runtime):
    job_id = created(runtime)
    cancel(runtime, KEY, job_id)
    restart(runtime, KEY, job_id)
    cancel(runtime, KEY, job_id)
    sent = []
    assert outcomes.deliver(runtime, lambda *message: sent.append(message), (OperationalError,)) == 2
    assert sorted((task_id, kwargs["n"]) for task_id, kwargs, _ in sent) == [
        (f"continue-{job_id}-1", 1),
        (f"continue-{job_id}-2", 2),
    ]


@pytest.mark.parametrize(
    "content", ["", "ä" * 2_000_000, '{"a": "\\u0001"}\n\t\u2028'], ids=["empty", "12 MB as JSON", "odd"]
)
def test_content_comes_whole_whatever_its_size(bridge, client, content):
    job_id = client.create()
    ok(client.result(client.claim(), content=content))
    assert delivered(bridge, job_id)[0].kwargs["content"] == content


def test_an_outcome_whose_nudge_was_lost_is_found_by_beat(bridge, client):
    job_id = client.create()
    asked = []
    deaf = replace(_core(bridge), nudge=asked.extend)
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


def test_an_outcome_that_was_taken_is_not_taken_again_at_once(runtime):
    cancel(runtime, KEY, created(runtime))
    inner = []

    def send(task_id, kwargs, tenant):
        inner.append(outcomes.deliver(runtime, send, (OperationalError,)))

    assert outcomes.deliver(runtime, send, (OperationalError,)) == 1
    assert inner == [0]


def finished(client, content="text"):
    job_id = client.create()
    ok(client.result(client.claim(), content=content))
    return job_id


def make_due(bridge, job_id):
    bridge.sql("UPDATE continuations SET next_at = now() WHERE job_id = :id AND next_at IS NOT NULL", id=job_id)
    nudge(bridge)


@pytest.mark.slow
def test_an_outcome_is_sent_again_until_it_is_confirmed(own_bridge):
    confirming = own_bridge(
        continuation_task="pipeline.receive", continuation_queue="nobody", continuation_confirm_seconds="1"
    )
    job_id = finished(confirming.client())
    found = taken(confirming, job_id)
    found += taken(confirming, job_id)  # by beat alone
    make_due(confirming, job_id)
    found += taken(confirming, job_id)
    assert {message.id for message in found} == {f"continue-{job_id}-1"}
    assert all(message.kwargs == found[0].kwargs for message in found)

    confirmed = confirming.celery.send_task(
        names.CONFIRM, kwargs={"job_id": job_id, "n": 1}, queue=names.QUEUE, ignore_result=True
    )
    assert confirmed.id
    wait_until(lambda: outcome(confirming, job_id).confirmed_at, "the confirmation")
    assert outcome(confirming, job_id).next_at is None
    other = finished(confirming.client())
    make_due(confirming, job_id)
    taken(confirming, other)
    taken(confirming, other)  # the next runs send the other one
    assert handed_over(confirming, job_id) == []


def test_a_confirmation_that_overtakes_the_delivery_counts(runtime):
    job_id = created(runtime)
    cancel(runtime, KEY, job_id)
    confirming = replace(runtime, settings=runtime.settings.model_copy(update={"continuation_confirm_seconds": 1}))

    def send(task_id, kwargs, tenant):
        assert outcomes.confirm(runtime, job_id, 1)  # the pipeline was quicker than our note

    assert outcomes.deliver(confirming, send, (OperationalError,)) == 1
    assert rows(runtime, "SELECT next_at FROM continuations")[0].next_at is None


def test_a_confirmation_of_what_never_was_changes_nothing(runtime):
    job_id = created(runtime)
    cancel(runtime, KEY, job_id)
    assert not outcomes.confirm(runtime, job_id, 2)
    assert not outcomes.confirm(runtime, str(uuid.uuid4()), 1)
    assert rows(runtime, "SELECT confirmed_at FROM continuations")[0].confirmed_at is None


@pytest.mark.slow
def test_what_a_flushed_broker_lost_is_sent_again(own_servers, own_bridge):
    broker = own_servers(postgres=False)
    bridge = own_bridge(
        redis_url=broker.redis_url,
        continuation_task="pipeline.receive",
        continuation_queue="nobody",
        continuation_confirm_seconds="5",
    )
    client = bridge.client()
    job_ids = [finished(client) for _ in range(3)]
    for job_id in job_ids:
        delivered(bridge, job_id)
        wait_until(lambda job_id=job_id: outcome(bridge, job_id).sent_at, "the delivery to be noted")
    with redis.Redis.from_url(broker.redis_url) as direct:
        direct.flushall()
    assert {delivered(bridge, job_id)[0].id for job_id in job_ids} == {f"continue-{job_id}-1" for job_id in job_ids}


@pytest.mark.slow
def test_what_ended_while_the_broker_was_away_is_sent_when_it_is_back(own_servers, own_bridge):
    broker = own_servers(postgres=False)
    bridge = own_bridge(redis_url=broker.redis_url, continuation_task="pipeline.receive", continuation_queue="nobody")
    client = bridge.client()
    job_ids = [client.create() for _ in range(3)]
    jobs = [client.claim() for _ in job_ids]
    broker.redis.stop()
    for job in jobs:
        assert ok(client.result(job)) == {"status": "completed", "ingestion_continued": True}
    broker.redis.start()
    for job_id in job_ids:
        assert delivered(bridge, job_id)[0].kwargs["success"] is True


@pytest.mark.slow
def test_what_a_worker_took_before_it_was_killed_is_sent_by_the_next(own_servers, own_bridge):
    broker = own_servers(postgres=False)
    bridge = own_bridge(
        beat=False, redis_url=broker.redis_url, continuation_task="pipeline.receive", continuation_queue="nobody"
    )
    client = bridge.client()
    job_id = client.create()
    job = client.claim()
    worker = next(child for child in bridge.stack.family.children if child.name == "celery")
    url = bridge.settings.require("database_url").replace("+psycopg2", "")
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'bridge-celery'"
    )
    direct = redis.Redis.from_url(broker.redis_url)
    with psycopg2.connect(url) as holder, holder.cursor() as cursor:
        # Ended without its nudge; ours runs into the lock and is held just before it takes the outcome.
        ok(client.result(job))
        wait_until(lambda: handed_over(bridge, job_id), "the first delivery")
        wait_until(lambda: outcome(bridge, job_id).sent_at, "the delivery to be noted")
        direct.delete("nobody")
        bridge.sql("UPDATE continuations SET next_at = now(), sent_at = NULL, tries = 0 WHERE job_id = :id", id=job_id)
        cursor.execute("LOCK TABLE continuations IN ACCESS EXCLUSIVE MODE")
        nudge(bridge)
        wait_until(lambda: bridge.sql(waiting), "the worker to stand before the lock")
        direct.client_pause(60_000, all=False)  # writes wait: nothing can be sent
    wait_until(lambda: outcome(bridge, job_id).tries == 1, "the worker to take the outcome")
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    direct.client_unpause()
    assert outcome(bridge, job_id).sent_at is None
    direct.delete("nobody")
    bridge.stack.family.children.remove(worker)
    bridge.stack.start_processes(api=False, beat=False)
    make_due(bridge, job_id)
    assert [message.id for message in delivered(bridge, job_id)] == [f"continue-{job_id}-1"]
    wait_until(lambda: outcome(bridge, job_id).sent_at, "the delivery to be noted")


def test_without_a_task_of_the_pipeline_nothing_is_recorded_and_the_worker_is_told(own_bridge):
    bridge = own_bridge(celery=False, beat=False)
    client = bridge.client()
    client.create()
    assert ok(client.result(client.claim())) == {"status": "completed", "ingestion_continued": False}
    assert bridge.sql("SELECT 1 FROM continuations") == []


def test_purge_takes_what_is_finished_handed_over_and_old(make_runtime):
    runtime = make_runtime(retention_days="2")
    old, young, unsent, unfinished = (created(runtime) for _ in range(4))
    for job_id in (old, young, unsent):
        cancel(runtime, KEY, job_id)
    outcomes.deliver(runtime, lambda *message: None, ())
    rows(runtime, "UPDATE continuations SET next_at = now() WHERE job_id = %(id)s", id=unsent)
    rows(
        runtime,
        "UPDATE remote_jobs SET created_at = now() - interval '3 days',"
        " completed_at = completed_at - interval '3 days' WHERE id <> %(young)s",
        young=young,
    )
    assert purge(runtime) == 1
    left = {str(row.id) for row in rows(runtime, "SELECT id FROM remote_jobs")}
    assert left == {young, unsent, unfinished}
    assert {str(row.job_id) for row in rows(runtime, "SELECT job_id FROM continuations")} == {young, unsent}


def test_purge_is_bounded_and_goes_on_at_its_next_run(runtime):
    for _ in range(5):
        cancel(runtime, KEY, created(runtime))
    outcomes.deliver(runtime, lambda *message: None, ())
    rows(runtime, "UPDATE remote_jobs SET completed_at = now() - interval '31 days'")
    assert purge(runtime, batch=2, rounds=2) == 4
    assert purge(runtime, batch=2, rounds=2) == 1
    assert rows(runtime, "SELECT 1 FROM remote_jobs") == []
