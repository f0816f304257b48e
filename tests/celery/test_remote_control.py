"""What a writer into the broker can make a Celery worker do: nothing; and what the accounts of docs/ keep apart."""

import re

import pytest
import redis
from celery import Celery

from bridge import names
from bridge.cli.local.checkout import ROOT
from tests.outbox.test_sample_pipeline import PIPELINE, WORKER, environment
from tests.support.client import ok
from tests.support.waiting import LATEST, wait_until


def create(bridge, client):
    fields = {**client.fields(), "tenant": client.tenant}
    answer = bridge.celery.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE)
    return answer.get(timeout=LATEST)["job_id"]


def test_a_worker_hears_no_remote_control(bridge, client):
    assert bridge.celery.control.ping(timeout=2) == []
    bridge.celery.control.shutdown()
    assert create(bridge, client)


@pytest.mark.slow
def test_where_it_is_on_a_worker_answers_questions_and_obeys_nobody(own_bridge):
    bridge = own_bridge(beat=False, api_processes="1", remote_control="on")
    client = bridge.client()
    create(bridge, client)
    control = bridge.celery.control
    [answer] = wait_until(lambda: control.ping(timeout=2), "an answer")
    [name] = answer
    for order in ("shutdown", "pool_shrink", "terminate", "revoke", "memdump"):
        found = control.broadcast(order, reply=True, timeout=1) or []
        assert all("error" in told for one in found for told in one.values()), found
    control.cancel_consumer(names.QUEUE)
    queues = wait_until(lambda: control.inspect(timeout=2).active_queues(), "an answer")
    assert {queue["name"] for queue in queues[name]} == set(names.QUEUES)
    assert create(bridge, client)


def accounts():
    """Return the file of docs/security.md, by account."""
    page = (ROOT / "docs" / "security.md").read_text()
    (block,) = re.findall(r"```acl\n(.*?)```", page, re.S)
    lines = [line for line in block.splitlines() if line.startswith("user ")]
    assert lines.pop(0) == "user default off"  # here it is the one by which the server is watched
    return {line.split()[1]: line.split()[2:] for line in lines}


@pytest.mark.slow
def test_the_documented_accounts_keep_the_pipeline_from_all_but_its_own_part(own_servers, own_bridge, tmp_path):
    servers = own_servers(postgres=False)
    admin = redis.Redis.from_url(servers.redis_url, decode_responses=True)
    place = servers.redis_url.rpartition("@")[2]
    urls = {}
    for name, rules in accounts().items():
        admin.execute_command("ACL", "SETUSER", name, *rules)
        password = next(rule[1:] for rule in rules if rule.startswith(">"))
        urls[name] = f"redis://{name}:{password}@{place}"
    assert set(urls) == {"bridge", "pipeline"}
    bridge = own_bridge(
        api_processes="1", redis_url=urls["bridge"], redis_prefix="bridge",
        continuation_task="sample_pipeline.receive", continuation_queue="pipeline", continuation_confirm_seconds="60",
    )  # fmt: skip
    client = bridge.client()
    pipeline = Celery("a pipeline", broker=urls["pipeline"], backend=urls["pipeline"], set_as_current=False)
    fields = {**client.fields(), "tenant": client.tenant}
    job_id = pipeline.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE).get(timeout=LATEST)["job_id"]
    ok(client.result(client.claim()))
    bridge.stack.family.start("pipeline", WORKER, environment(tmp_path, urls["pipeline"]), cwd=PIPELINE)
    confirmed = "SELECT confirmed_at FROM continuations WHERE job_id = :id"
    wait_until(lambda: bridge.sql(confirmed, id=job_id)[0].confirmed_at, "the confirmation")
    wait_until(lambda: bridge.sql("SELECT 1 FROM sweeps WHERE name = 'expire_jobs'"), "beat's sweeps")

    outsider = redis.Redis.from_url(urls["pipeline"])
    for forbidden in (
        ("RPOP", names.QUEUE), ("LRANGE", names.QUEUE, 0, -1), ("DEL", names.QUEUE), ("LPUSH", names.SWEEPS, "x"),
        ("GET", "bridge:epoch"), ("DEL", "bridge:epoch"), ("HGETALL", "bridge.unacked"), ("FLUSHALL",), ("KEYS", "*"),
        ("CONFIG", "GET", "*"), ("PUBLISH", "/0.celery.pidbox", "x"), ("ACL", "LIST"), ("EVAL", "return 1", 0),
    ):  # fmt: skip
        with pytest.raises(redis.exceptions.NoPermissionError):
            outsider.execute_command(*forbidden)
