"""GET /api/v1/workers: who asks for what, what they hold; soft state in Redis that nothing else depends on."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis.exceptions import RedisError

from bridge.workers import registry
from bridge.workers.facts import UNTOLD, Facts
from bridge.workers.registry import REMEMBERED_SECONDS, Worker, WorkerRegistry
from bridge.workers.roster import roster_of
from bridge.workers.slots import Slots
from tests.support.client import ok, refused
from tests.support.core import KEY
from tests.support.waiting import wait_until

W1 = Worker(UUID(int=1), "w1")
MOST = 500  # workers that are remembered of a tenant


@pytest.fixture
def seen(servers, redis):
    """Return the soft state of a process, under a prefix of its own."""
    for key in redis.scan_iter("seen-test:*"):
        redis.delete(key)
    return WorkerRegistry(servers.redis_url, "seen-test", "p1")


def workers(client) -> dict[str, dict[str, Any]]:
    return {worker["worker_id"]: worker for worker in ok(client.get("/api/v1/workers"))["workers"]}


def shown(client, worker_id: str) -> dict[str, Any]:
    return wait_until(lambda: workers(client).get(worker_id), f"{worker_id} to be shown")


def test_what_was_noted_is_read_by_another_process_once_it_is_written(seen, servers):
    other = WorkerRegistry(servers.redis_url, "seen-test", "p2")
    seen.note("t", W1, ["audio", "video"], ["web"])
    assert other.read("t") == {}
    seen.write()
    assert {who: (asking.content_types, asking.denied) for who, asking in other.read("t").items()} == {
        W1: (["audio", "video"], ["web"])
    }
    assert other.read("another") == {}


def test_slots_are_told_and_what_an_earlier_version_wrote_is_read_too(seen, redis):
    seen.note("t", W1, ["audio"], slots=Slots(2, 6))
    seen.write()
    assert seen.read("t")[W1].slots == (2, 6)
    member = f"{W1.key_id}/w1"
    read = {
        '[["audio"], []]': (None, None),
        '[["audio"], [], "x", 1]': (None, None),
        '[["audio"], [], null, 3]': (None, 3),
        '[["audio"], [], true, 1, 2]': (None, None),
    }
    for written, slots in read.items():
        redis.hset("seen-test:workers:{t}:asks", member, written)
        assert seen.read("t")[W1].slots == slots


def test_facts_are_kept_until_told_anew_and_of_a_known_form(seen, redis):
    told = Facts("1.0", "gpu-7", "Linux", None, 2**40, 7)
    seen.note("t", W1, ["audio"])
    seen.note_facts("t", W1, told)
    seen.write()
    seen.note("t", W1, ["video"])
    seen.note_facts("t", W1, UNTOLD)
    seen.write()
    assert seen.read("t")[W1].facts == told
    for written in ("x", "[]", "{}", '[1, null, null, null, null, null]', '["a", null, null, null, true, null]',
                    '["a", null, null, null, -1, null]', f'["{"a" * 101}", null, null, null, 1, null]'):  # fmt: skip
        redis.hset("seen-test:workers:{t}:facts", f"{W1.key_id}/w1", written)
        assert seen.read("t")[W1].facts == UNTOLD
    assert 0 < redis.ttl("seen-test:workers:{t}:facts") <= REMEMBERED_SECONDS


def test_heartbeats_with_facts_keep_a_busy_worker_remembered_and_make_up_none(seen, redis):
    seen.note("t", W1, ["audio"])
    seen.write()
    redis.zincrby("seen-test:workers:{t}:seen", -3000, f"{W1.key_id}/w1")
    seen.note_facts("t", W1, Facts("1.0"))
    seen.note_facts("t", Worker(UUID(int=1), "made-up"), Facts("1.0"))
    seen.write()
    assert list(seen.read("t")) == [W1]
    assert seen.read("t")[W1].at > time.time() - 60


def test_a_poll_tells_its_slots_and_workers_shows_them(client):
    ok(client.poll("video", "gpu-1", slots_busy=2, slots_free=6))
    worker = shown(client, "gpu-1")
    assert (worker["slots_busy"], worker["slots_free"]) == (2, 6)
    refused(client.poll("video", "gpu-1", slots_free=-1), 422, "validation")


def test_many_polls_of_a_worker_are_one_write(seen, redis):
    for n in range(1000):
        seen.note("t", W1, [f"type-{n}"])
    seen.write()
    assert seen.read("t")[W1].content_types == ["type-999"]
    redis.delete("seen-test:workers:{t}:seen")
    seen.write()
    assert seen.read("t") == {}, "it was written once"


def test_thousands_of_workers_are_read_those_seen_last_first(seen):
    for n in range(1200):
        seen.note("t", Worker(UUID(int=1), f"w/{n}"), ["audio"])
    seen.write()
    read = list(seen.read("t"))
    assert len(read) == 1200
    assert read[0] == Worker(UUID(int=1), "w/1199")


def test_who_makes_workers_up_without_end_fills_neither_redis_nor_this_process(seen, redis, monkeypatch):
    """A leaked key can name a new worker at every poll."""
    monkeypatch.setattr(registry, "MOST", MOST)
    for lap in range(2):
        for n in range(MOST + 100):
            seen.note("t", Worker(UUID(int=1), f"made-up-{lap}-{n}"), ["audio"])
            seen.note_facts("t", Worker(UUID(int=1), f"made-up-{lap}-{n}"), Facts("1.0"))
        assert len(seen._news["t"]) == MOST
        seen.write()
    assert redis.zcard("seen-test:workers:{t}:seen") == MOST
    assert redis.hlen("seen-test:workers:{t}:asks") == MOST
    assert redis.hlen("seen-test:workers:{t}:facts") <= MOST
    assert {who.worker_id.split("-")[2] for who in seen.read("t")} == {"1"}, "those seen last"


def test_a_worker_that_was_not_seen_for_an_hour_is_forgotten(seen, redis):
    seen.note("t", W1, ["audio"])
    seen.write()
    assert 0 < redis.ttl("seen-test:workers:{t}:seen") <= REMEMBERED_SECONDS
    assert 0 < redis.ttl("seen-test:workers:{t}:asks") <= REMEMBERED_SECONDS
    redis.zincrby("seen-test:workers:{t}:seen", -REMEMBERED_SECONDS - 1, f"{W1.key_id}/w1")
    assert seen.read("t") == {}
    seen.note("t", Worker(UUID(int=1), "w2"), ["audio"])
    seen.write()
    assert list(redis.hgetall("seen-test:workers:{t}:asks")) == [f"{UUID(int=1)}/w2"]


def test_parked_polls_are_summed_over_the_processes_that_live(seen, servers, redis):
    seen.write_parked({"t": 3, "u": 1})
    WorkerRegistry(servers.redis_url, "seen-test", "p2").write_parked({"t": 4})
    assert (seen.parked("t"), seen.parked("u"), seen.parked("v")) == (7, 1, 0)
    redis.hset("seen-test:parked", "p2", '[1000, {"t": 4}]')
    assert seen.parked("t") == 3
    assert not redis.hexists("seen-test:parked", "p2")


def test_without_redis_those_that_hold_a_job_are_still_known(core):
    job = core.held("w5", content_type="video")
    nowhere = WorkerRegistry("redis://127.0.0.1:1/0", "seen-test", "p1")
    nowhere.note("default", W1, ["audio"])
    with pytest.raises(RedisError):
        nowhere.write()
    core.sql("INSERT INTO api_keys (id, prefix, secret_hash, name, tenant, scopes) VALUES"
             " (:id, 'jb_x', '', 'a key', 'default', ARRAY['work'])", id=str(KEY.key_id))  # fmt: skip
    known = roster_of(core.runtime, nowhere, "default")
    assert not known.redis
    [hand] = known.hands
    assert (hand.worker_id, hand.jobs_in_hand, hand.job_ids) == ("w5", 1, [str(job.job_id)])
    assert hand.key is not None
    assert (hand.key.name, hand.content_types) == ("a key", ["video"])


def test_a_worker_is_shown_with_its_key_and_what_it_asks_for_but_no_secret(bridge, client):
    limited = bridge.client(client.tenant, ("work",), content_types=["audio"])
    ok(limited.poll("video,audio", "gpu-1"))
    worker = shown(client, "gpu-1")
    assert worker["content_types"] == ["audio"]
    assert worker["denied_content_types"] == ["video"]
    assert worker["key"] == {"name": "test", "prefix": limited.key[: len("jb_00000000")]}
    assert limited.key not in str(worker)
    assert (worker["jobs_in_hand"], worker["job_ids"], worker["paused"]) == (0, [], None)
    assert datetime.now(UTC) - datetime.fromisoformat(worker["last_seen"]) < timedelta(minutes=1)
    assert "gpu-1" not in workers(bridge.client())


def test_a_worker_whose_key_allows_nothing_of_what_it_asks_for_is_shown(bridge, client):
    limited = bridge.client(client.tenant, ("work",), content_types=["audio"])
    assert limited.poll("video", "gpu-2").status_code == 403
    assert shown(client, "gpu-2")["denied_content_types"] == ["video"]


def test_the_jobs_in_hand_are_shown(client):
    made = {client.create() for _ in range(3)}
    taken = ok(client.poll(max_jobs=3, worker_id="w3"))["jobs"]
    assert {job["job_id"] for job in taken} == made
    worker = shown(client, "w3")
    assert (worker["jobs_in_hand"], set(worker["job_ids"])) == (3, made)
    for job in taken:
        ok(client.result(job))
    wait_until(lambda: "w3" in workers(client) and shown(client, "w3")["jobs_in_hand"] == 0, "its hands to be empty")


def test_a_parked_worker_is_seen_as_long_as_it_waits(client):
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(client.poll, "web", "w4", wait=60)
        first = shown(client, "w4")["last_seen"]
        wait_until(lambda: shown(client, "w4")["last_seen"] > first, "it to be seen again", 40)
        client.create("web")
        assert ok(poll.result())["jobs"]


def test_a_sign_of_life_of_a_job_is_seen_too(bridge, client):
    job = client.held(worker_id="w6")
    shown(client, "w6")
    ok(client.heartbeat(job))
    with_age = "UPDATE remote_jobs SET lease_expires_at = lease_expires_at + interval '1 minute' WHERE id = :id"
    bridge.sql(with_age, id=job["job_id"])
    assert datetime.fromisoformat(workers(client)["w6"]["last_seen"]) > datetime.now(UTC) + timedelta(seconds=30)
