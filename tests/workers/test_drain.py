"""Workers that are asked to end: given nothing more, told with their polls and heartbeats, their results taken."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from bridge.workers.pauses import now_paused, of_worker, pause
from models.pause import PausedBy
from tests.support.client import ok, refused
from tests.support.core import KEY
from tests.support.waiting import wait_until
from tests.workers.test_workers_seen import shown

WORKERS = "/api/v1/workers"


def drain(client, worker_id="w1", **body):
    return ok(client.post(f"{WORKERS}/{quote(worker_id, safe='')}/drain", body or None))


def hears(client, job, drains: bool) -> None:
    """Wait until the process of the client's connection tells it: the next requests go over the same one."""
    client.session.close()  # polls have left others, perhaps to the other process
    wait_until(lambda: ok(client.heartbeat(job))["drain"] is drains, "it to be known")


def test_a_worker_is_told_finishes_what_it_holds_and_gets_nothing_more(client):
    job = client.held("image", "a/1 ü")
    assert ok(client.heartbeat(job))["drain"] is False
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.poll, "image", "a/1 ü", wait=60)
        other = pool.submit(client.poll, "image", "w2", wait=60)
        wait_until(lambda: ok(client.get("statistics"))["parked_polls"] == 2, "both to wait")
        answer = drain(client, "a/1 ü", reason="its machine goes")
        assert (answer["paused"], answer["drain"], answer["until"] is None) == (True, True, False)
        problem = refused(waiting.result(60), 429, "paused")
        assert problem["drain"] is True
        assert "its machine goes" in problem["detail"]
        assert not other.done()
        client.create("image")
        assert len(ok(other.result(60))["jobs"]) == 1
    hears(client, job, True)
    token = {"X-Lease-Token": job["lease_token"]}
    assert ok(client.put(f"{job['job_id']}/progress", {"percentage": 50}, headers=token))["drain"]
    assert ok(client.result(job))["status"] == "completed"
    client.create("image")
    assert refused(client.poll("image", "a/1 ü"), 429, "paused")["drain"] is True
    [paused] = [one["paused"] for one in ok(client.get(WORKERS))["workers"] if one["worker_id"] == "a/1 ü"]
    assert (paused["by"], paused["drain"]) == ("operator", True)
    assert ok(client.post(f"{WORKERS}/{quote('a/1 ü', safe='')}/resume"))["drain"] is False
    wait_until(lambda: client.poll("image", "a/1 ü").status_code == 200, "the end of the drain")


def test_a_lost_answer_is_given_again_and_the_heartbeat_tells(client):
    client.create("image")
    job = ok(client.poll("image", claim_id="c1", lease=60))["jobs"][0]
    drain(client)
    wait_until(lambda: client.poll("image").status_code == 429, "the drain")
    again = ok(client.poll("image", claim_id="c1", lease=60))["jobs"]
    assert [one["lease_token"] for one in again] == [job["lease_token"]]
    hears(client, job, True)
    assert "drain" not in refused(client.poll("image", lease=7), 422, "validation")


def test_only_sound_fields_drain_and_a_worker_of_the_own_tenant_alone(bridge, client):
    for wrong in ({"seconds": 0}, {"seconds": "60"}, {"reason": ""}, {"key": "jb_none"}, {"until": 1}):
        refused(client.post(f"{WORKERS}/w1/drain", wrong), 422, "validation")
    ok(bridge.client().post(f"{WORKERS}/w1/drain"))  # of another tenant
    assert ok(client.poll("image"))["jobs"] == []


def in_force(core):
    with core.engine.connect() as connection:
        return now_paused(connection, core.tenant)


def test_a_drain_takes_a_pauses_place_and_goes_before_one_of_the_bridge(core):
    pause(core.runtime, core.tenant, "w1", "first", None)
    pause(core.runtime, core.tenant, "w1", "second", 3600, drain=True)
    [one] = in_force(core)
    assert one.seconds_left is not None
    assert (one.reason, one.drain, 3590 < one.seconds_left <= 3600) == ("second", True, True)
    longer = one._replace(by=PausedBy.BRIDGE, drain=False, seconds_left=7200.0)
    assert of_worker([longer, one], KEY.key_id) is one
    pause(core.runtime, core.tenant, "w1", "third")
    assert [(one.reason, one.drain, one.until) for one in in_force(core)] == [("third", False, None)]


TEXTS = {"version": "1.2", "host": "gpu-7", "platform": "Linux x86_64", "gpu": "A100"}
FACTS = {**TEXTS, "memory": 2**40, "memory_free": 0}


def test_what_a_worker_tells_of_itself_is_shown_until_it_tells_anew(client):
    client.create("image")
    job = client.claim("image", "told", **FACTS)
    wait_until(lambda: shown(client, "told")["facts"] == FACTS, "the facts to be shown")
    told = {**dict.fromkeys(FACTS), "host": "<b>\u202egpu", "memory_free": 5}
    ok(client.heartbeat(job, **told))
    ok(client.poll("image", "told"))
    wait_until(lambda: shown(client, "told")["facts"] == told, "the new ones")


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_bounded(client, name):
    job = client.held("image")
    for value in ["x" * 101] if name in TEXTS else [-1, 2**53, "x"]:
        refused(client.poll("image", **{name: value}), 422, "validation")
        refused(client.heartbeat(job, **{name: value}), 422, "validation")
