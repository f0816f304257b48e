"""Outcomes that were lost or not confirmed are sent again: a broker is flushed or away."""

import pytest
import redis

from bridge import embedded, names
from tests.support.broker import delivered, handed_over, outcome
from tests.support.client import ok
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """Yield a broker of these tests alone, to flush and to stop."""
    with embedded.start(tmp_path_factory.mktemp("broker"), postgres=False, durable=False) as broker:
        yield broker


@pytest.fixture(scope="module")
def confirming(start_bridge, broker):
    """Yield a bridge that wants confirmations."""
    bridge = start_bridge(
        redis_url=broker.redis_url, continuation_task="pipeline.receive", continuation_queue="nobody",
        continuation_confirm_seconds="1",
    )  # fmt: skip
    yield bridge
    bridge.stop()


def taken(bridge, job_id):
    """Return the next deliveries of a job's outcomes, taken off the queue by a pipeline that confirms nothing."""
    found = delivered(bridge, job_id)
    with redis.Redis.from_url(bridge.settings.require("broker_url")) as direct:
        direct.delete(bridge.settings.continuation_queue)
    return found


def finished(client):
    job = client.held()
    ok(client.result(job))
    return job["job_id"]


def make_due(bridge, job_id):
    bridge.sql("UPDATE continuations SET next_at = now() WHERE job_id = :id AND next_at IS NOT NULL", id=job_id)
    bridge.celery.send_task(names.CONTINUE, queue=names.QUEUE, ignore_result=True)  # beat's run, now


@pytest.mark.slow
def test_an_outcome_is_sent_again_until_it_is_confirmed(confirming):
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
def test_what_a_flushed_broker_lost_and_what_ended_while_it_was_away_is_sent(broker, confirming):
    client = confirming.client()
    job_ids = [finished(client) for _ in range(3)]
    for job_id in job_ids:
        delivered(confirming, job_id)
        wait_until(lambda job_id=job_id: outcome(confirming, job_id).sent_at, "the delivery to be noted")
    with redis.Redis.from_url(broker.redis_url) as direct:
        direct.flushall()
    assert {delivered(confirming, job_id)[0].id for job_id in job_ids} == {f"continue-{job_id}-1" for job_id in job_ids}

    jobs = [client.held() for _ in range(3)]
    broker.redis.stop()
    for job in jobs:
        assert ok(client.result(job)) == {"status": "completed", "ingestion_continued": True}
    broker.redis.start()
    for job in jobs:
        assert delivered(confirming, job["job_id"])[0].kwargs["success"] is True
