"""Outcomes that were lost or not confirmed are sent again: a broker is flushed or away, a worker is killed."""

import os
import signal

import psycopg2
import pytest
import redis

from bridge import names
from tests.support.broker import delivered, handed_over, outcome
from tests.support.client import ok
from tests.support.waiting import wait_until


def taken(bridge, job_id):
    """Return the next deliveries of a job's outcomes, taken off the queue by a pipeline that confirms nothing."""
    found = delivered(bridge, job_id)
    with redis.Redis.from_url(bridge.settings.require("broker_url")) as direct:
        direct.delete(bridge.settings.continuation_queue)
    return found


def nudge(bridge):
    """Beat's run, now."""
    bridge.celery.send_task(names.CONTINUE, queue=names.QUEUE, ignore_result=True)


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


@pytest.mark.slow
def test_what_a_flushed_broker_lost_and_what_ended_while_it_was_away_is_sent(own_servers, own_bridge):
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

    jobs = [client.held() for _ in range(3)]
    broker.redis.stop()
    for job in jobs:
        assert ok(client.result(job)) == {"status": "completed", "ingestion_continued": True}
    broker.redis.start()
    for job in jobs:
        assert delivered(bridge, job["job_id"])[0].kwargs["success"] is True


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
