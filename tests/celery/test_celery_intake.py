"""`bridge.enqueue_remote_job`, called as a pipeline calls it: by name, through the broker."""

import json
import os
import re
import signal
import threading
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from celery.backends.base import BaseKeyValueStoreBackend
from celery.result import AsyncResult
from kombu import Connection, Exchange, Producer, Queue

from bridge import names
from models import migrations
from tests.support.client import ok, refused
from tests.support.waiting import LATEST, wait_until


def send(bridge, task_id=None, **kwargs) -> "AsyncResult[Any]":
    return bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE, task_id=task_id)


def kwargs_for(client, content_type="audio", **fields):
    return {"tenant": client.tenant, **client.fields(content_type, **fields)}


def count(bridge, client) -> int:
    return bridge.sql("SELECT count(*) FROM remote_jobs WHERE tenant = :tenant", tenant=client.tenant)[0][0]


def test_the_answer_is_json_with_the_same_members_as_over_http(bridge, client):
    answer = send(bridge, **kwargs_for(client))
    body = answer.get(timeout=LATEST)
    assert set(body) == {"job_id", "status", "created_at"}
    assert body["status"] == "pending"
    created = datetime.fromisoformat(body["created_at"])
    assert created.tzinfo is not None
    assert created == datetime.fromisoformat(client.job(body["job_id"])["created_at"])
    backend = answer.backend
    assert isinstance(backend, BaseKeyValueStoreBackend)
    stored = json.loads(backend.get(backend.get_key_for_task(answer.id)))
    assert stored["result"] == body


def test_every_field_of_a_create_is_taken(bridge, client):
    given = {
        "priority": "high",
        "max_retries": 7,
        "timeout_seconds": 77,
        "queue_timeout_seconds": 777,
        "task_options": {"language": "de"},
    }
    job = client.job(send(bridge, **kwargs_for(client, **given)).get(timeout=LATEST)["job_id"])
    assert {name: job[name] for name in given} == given


def test_a_task_that_is_delivered_again_makes_no_second_job(bridge, client):
    task_id, kwargs = str(uuid.uuid4()), kwargs_for(client)
    first = send(bridge, task_id, **kwargs)
    job_id = first.get(timeout=LATEST)["job_id"]
    first.forget()  # so that the second answer is the second run's
    assert send(bridge, task_id, **kwargs).get(timeout=LATEST)["job_id"] == job_id
    assert count(bridge, client) == 1


def test_a_task_whose_worker_was_killed_in_the_middle_makes_one_job(own_bridge):
    bridge = own_bridge(beat=False)
    client = bridge.client()
    url = bridge.settings.require("database_url").replace("+psycopg2", "")
    worker = next(child.process.pid for child in bridge.stack.family.children if child.name == "celery")
    blocked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg2.connect(url) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE remote_jobs IN ACCESS EXCLUSIVE MODE")
        answer = send(bridge, **kwargs_for(client))
        wait_until(lambda: bridge.sql(blocked), "the task to stand before the lock")
        pool = psutil.Process(worker).children()
        for child in pool:
            os.kill(child.pid, signal.SIGKILL)
        psutil.wait_procs(pool, timeout=10)
    job_id = answer.get(timeout=LATEST)["job_id"]  # at once, or after 130 s where Celery missed whose death it was
    assert count(bridge, client) == 1
    assert client.status(job_id) == "pending"


def test_without_a_tenant_it_is_the_default_one(bridge, client):
    job_id = send(bridge, **client.fields()).get(timeout=LATEST)["job_id"]
    try:
        assert bridge.client("default").job(job_id)["job_id"] == job_id
    finally:
        bridge.client("default").post(f"{job_id}/cancel")


@pytest.mark.parametrize(
    "wrong",
    [
        {"content_type": "Audio!"},
        {"max_retries": "3"},
        {"timeout_seconds": 0},
        {"priority": "urgent"},
        {"task_options": ["a list"]},
        {"ingestion_task_id": ""},
        {"available_at": "tomorrow"},
        {"unheard_of": 1},
        {"source_file_path": "/etc/passwd"},
        {"max_retries": 101, "queue_timeout_seconds": 0},
    ],
    ids=lambda wrong: "+".join(wrong),
)
def test_wrong_fields_fail_the_task_with_the_messages_of_http(bridge, client, wrong):
    body = client.fields(**wrong)
    problem = refused(client.post("", body), 422)
    answer = send(bridge, tenant=client.tenant, **body)
    with pytest.raises(Exception, match="refused") as failure:
        answer.get(timeout=LATEST)
    assert str(failure.value) == problem["detail"]
    assert type(failure.value).__name__ == "Refused"
    assert count(bridge, client) == 0


def test_a_missing_field_is_named(bridge, client):
    with pytest.raises(Exception, match="ingestion_task_id: Missing data"):
        send(bridge, source_file_path=client.source(), content_type="audio").get(timeout=LATEST)


@pytest.mark.parametrize("tenant", ["", "A Tenant", "x" * 51, "a:b", "misspelt", 5, None])
def test_a_wrong_tenant_is_refused(bridge, client, tenant):
    why = "It has never had a key" if tenant == "misspelt" else "Must be"
    with pytest.raises(Exception, match=f"tenant: {why}"):
        send(bridge, **kwargs_for(client, tenant=tenant)).get(timeout=LATEST)
    assert bridge.sql("SELECT 1 FROM remote_jobs WHERE tenant = :tenant", tenant=str(tenant)) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b", "\ud800", 5])
def test_a_wrong_idempotency_key_is_refused(bridge, client, key):
    with pytest.raises(Exception, match="idempotency_key"):
        send(bridge, **kwargs_for(client, idempotency_key=key)).get(timeout=LATEST)
    assert count(bridge, client) == 0


@pytest.mark.slow
def test_while_postgresql_is_away_the_task_waits_and_then_makes_its_job(own_servers, own_bridge):
    servers = own_servers(redis=False)
    migrations.upgrade(servers.database_url)
    bridge = own_bridge(beat=False, database_url=servers.database_url)
    client = bridge.client()
    kwargs = kwargs_for(client)
    servers.postgres.stop()
    answer = send(bridge, **kwargs)
    wait_until(lambda: answer.state == "RETRY", "the task to be put off")
    left = [names.FOLD, names.REPEAT, names.CONTINUE, names.CALL_BACK]  # a long traceback of them would clog Celery
    for task in left:
        bridge.celery.send_task(task, queue=names.QUEUE, ignore_result=True)
    celery = next(child for child in bridge.stack.family.children if child.name == "celery").log
    skipped = "sweep_skipped_postgresql_unavailable"
    wait_until(lambda: celery.read_text().count(skipped) == len(left), "the sweeps to be left to the next run")
    servers.postgres.start()
    job_id = answer.get(timeout=LATEST)["job_id"]
    assert "raised unexpected" not in celery.read_text()
    bridge.engine.dispose()  # its connections ended with the server
    assert [str(row.id) for row in bridge.sql("SELECT id FROM remote_jobs")] == [job_id]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_a_pickled_message_runs_nothing_and_does_not_stop_the_worker(bridge, client, tmp_path):
    place = tmp_path / "it ran"
    task_id = str(uuid.uuid4())
    headers = {"lang": "py", "task": names.ENQUEUE, "id": task_id, "root_id": task_id, "argsrepr": "", "kwargsrepr": ""}
    body: tuple[Any, ...] = ((Bomb(place),), kwargs_for(client), {})
    queue = Queue(names.QUEUE, Exchange(names.QUEUE, type="direct"), routing_key=names.QUEUE)
    with Connection(bridge.settings.require("broker_url")) as connection:
        producer = Producer(connection, exchange=queue.exchange, routing_key=names.QUEUE, serializer="pickle")
        producer.publish(body, headers=headers, correlation_id=task_id)
    later = [send(bridge, **kwargs_for(client)).get(timeout=LATEST)["job_id"] for _ in range(3)]
    assert count(bridge, client) == len(later)
    assert not place.exists()


def test_events_name_tasks_and_ids_and_no_text_of_a_document(bridge, client):
    text = "what only the document says"
    seen, enough = [], threading.Event()
    job_ids: set[str] = set()
    handing_over: set[str] = set()

    def note(event):
        seen.append(event)
        if event["type"] == "task-succeeded" and event["uuid"] in handing_over:
            enough.set()
        ours = job_ids & set(re.findall(r"[0-9a-f-]{36}", event.get("kwargs", "")))
        if event["type"] == "task-received" and event["name"] == names.CONTINUE and ours:
            handing_over.add(event["uuid"])

    def listen():
        with bridge.celery.connection() as connection:
            receiver = bridge.celery.events.Receiver(connection, handlers={"*": note})
            for _ in receiver.consume(limit=None, timeout=None, wakeup=False):
                if enough.is_set():
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    wait_until(lambda: seen, "the first event: beat makes some every second")
    job_ids.add(send(bridge, **kwargs_for(client)).get(timeout=LATEST)["job_id"])
    ok(client.result(client.claim(), content=text, metadata={"title": text}))
    assert enough.wait(30), f"the continuation was not seen among {[event['type'] for event in seen]}"
    listener.join(10)
    assert text not in json.dumps(seen)
