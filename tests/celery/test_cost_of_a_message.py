"""What a message over Celery costs less than in Celery's own way, and what stays so (docs/decisions/0051)."""

import uuid
from typing import Any

import pytest
import redis
from celery import Celery
from celery.backends.redis import RedisBackend
from celery.states import FAILURE, SUCCESS
from kombu import Connection
from kombu.asynchronous import Hub

from bridge.redis_url import for_celery
from tasks import consumer as ours
from tasks.result_backend import Loader, Redis, Sentinel


@pytest.fixture
def answers(bridge):
    """Where the bridge's Celery worker keeps answers."""
    address = for_celery(bridge.settings.require("broker_url"))
    app = Celery("tests", backend=address, loader=Loader, set_as_current=False)
    assert isinstance(app.backend, Redis)
    return app.backend


@pytest.mark.parametrize("broken", ["before", "after"])
def test_a_failure_does_not_replace_an_answer_and_an_answer_replaces_a_failure(answers, broken):
    task_id = str(uuid.uuid4())
    if broken == "before":
        answers.mark_as_failure(task_id, ValueError("lost"))
        assert answers.get_task_meta(task_id)["status"] == FAILURE
    answers.mark_as_done(task_id, {"job_id": "a"})
    if broken == "after":
        answers.mark_as_failure(task_id, ValueError("lost"))
    assert answers.get_task_meta(task_id, cache=False) | {"date_done": None, "children": None} == {
        "status": SUCCESS, "result": {"job_id": "a"}, "traceback": None, "task_id": task_id,
        "date_done": None, "children": None,
    }  # fmt: skip
    assert 3500 < answers.client.ttl(answers.get_key_for_task(task_id)) <= 86400


def test_an_answer_is_kept_without_a_look_before_and_those_who_wait_are_told(answers):
    task_id = str(uuid.uuid4())
    key = answers.get_key_for_task(task_id)
    with answers.client.monitor() as seen:
        answers.mark_as_done(task_id, {"job_id": "a"})
        answers.client.echo(task_id)
        commands = []
        for command in iter(seen.next_command, None):
            words = command["command"].split()
            if words[0].upper() == "ECHO" and task_id in words[1]:
                break
            if key.decode() in command["command"]:
                commands.append(words[0].upper())
    assert sorted(commands) in (["PUBLISH", "SET"], ["PUBLISH", "SETEX"])


def test_each_address_of_a_broker_has_such_answers():
    for address, kind in {
        "redis://h/0": Redis,
        "unix:///run/r.sock": Redis,
        "rediss://h/0": Redis,
        "sentinel://h:1,i:1/m": Sentinel,
    }.items():
        app = Celery("tests", backend=for_celery(address), loader=Loader, set_as_current=False)
        assert isinstance(app.backend, RedisBackend)
        assert type(app.backend) is kind, address


def test_events_wait_for_others_and_are_told_though_a_lost_connection_clears_the_timers():
    consumer, told = ours.Consumer.__new__(ours.Consumer), []
    consumer.hub = Hub()
    consumer._flush_events = lambda: told.append(1)
    for _ in range(100):
        consumer.on_send_event_buffered()
    assert len(consumer.hub.timer.queue) == 1
    consumer.hub.timer.clear()
    consumer._events_due = 0.0  # their time is over
    consumer.on_send_event_buffered()
    consumer.hub.timer.queue[0].entry()
    assert told == [1]


def test_messages_are_noted_by_one_client_and_by_a_new_one_after_a_lost_connection(bridge):
    with Connection(for_celery(bridge.settings.require("broker_url"))) as connection:
        channel: Any = connection.default_channel
        noted = ours.Unacknowledged(channel)
        with noted.pipe_or_acquire() as one, noted.pipe_or_acquire() as other:
            assert one.connection_pool is other.connection_pool is channel.pool
            assert one is not other
        first = noted._one
        with noted.pipe_or_acquire(one) as same:
            assert same is one
        channel._disconnect_pools()
        with noted.pipe_or_acquire() as pipe:
            assert pipe.connection_pool is channel.pool
            assert isinstance(pipe, redis.client.Pipeline)
            pipe.ping()
            assert pipe.execute() == [True]
        assert noted._one is not first
