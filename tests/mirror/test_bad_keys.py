"""Whoever reaches Redis can write anything into a key: it stops nothing but what it stands for, and is mended."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import redis as redis_py

from bridge.admission.limits import Limits
from bridge.errors import TooMany
from bridge.mirror.reconcile import reconcile
from bridge.mirror.release_due import release_due
from bridge.queues import Queue
from bridge.redis_breaker import RedisBreaker
from bridge.workers.registry import Worker, WorkerRegistry
from tests.support.client import ok
from tests.support.core import outcome_of
from tests.support.racing import meanwhile
from tests.support.waiting import wait_until

AUDIO, VIDEO = Queue("default", "audio"), Queue("default", "video")
LIST = "core:{default:audio}:pending:normal"


def spoil(redis, key: str, kind: str = "string") -> None:
    redis.delete(key)
    if kind == "string":
        redis.set(key, "x")
    elif kind == "list":
        redis.rpush(key, b"\xff\x00", "{}")
    else:
        redis.hset(key, "x", b"\xff")


def test_a_list_that_is_none_costs_its_own_queue_the_mirror_and_no_other(core, redis):
    spoil(redis, LIST)
    core.create("audio")
    other = core.create("video")
    assert not core.runtime.mirror.breaker.lost
    taken = core.runtime.mirror.take({AUDIO: 5, VIDEO: 5})
    assert [entry.job_id for entry in taken.entries] == [other]
    assert not taken.whole, "PostgreSQL is to be asked for the rest"
    assert core.runtime.mirror.lengths([AUDIO, VIDEO]) == {AUDIO: 1, VIDEO: 0}


def test_it_does_not_stop_the_repair_and_is_mended_by_it(core, redis):
    ids = [core.create("audio") for _ in range(3)]
    missing = core.create("video")
    redis.delete("core:{default:video}:pending:normal")
    for key in (LIST, "core:{default:audio}:pending:low", "core:{default:audio}:claimed:dead", "core:suspects"):
        spoil(redis, key, "hash")
    reconcile(core.runtime.engine, core.runtime.mirror)
    assert redis.lrange(LIST, 0, -1)[::-1] == ids
    assert redis.lrange("core:{default:video}:pending:normal", 0, -1) == [missing]
    assert redis.exists("core:epoch")
    assert sum(reconcile(core.runtime.engine, core.runtime.mirror)) == 0


@pytest.mark.parametrize(
    "mark",
    [
        "x",
        "[]",
        "null",
        '["default", "audio", 0, "yesterday", "x"]',
        "[1, 2, 3, 4, 5]",
        '["a", "b", "c", "d", "e"]',
        '["default", "audio", 0, "2026-01-01T00:00:00+00:00", "x"]',
    ],
)
def test_a_mark_of_a_rebuild_that_cannot_be_read_starts_it_anew(core, redis, mark):
    job_id = core.create("audio")
    redis.delete(LIST, "core:epoch")
    redis.set("core:rebuilt", mark)
    assert reconcile(core.runtime.engine, core.runtime.mirror).rebuilt == 1
    assert redis.lrange(LIST, 0, -1) == [job_id]


def test_a_mark_of_suspects_that_is_none_costs_no_rebuild(core, redis):
    core.create("audio")
    spoil(redis, "core:suspects")
    assert sum(reconcile(core.runtime.engine, core.runtime.mirror)) == 0
    assert not redis.exists("core:suspects")


def test_what_is_spoilt_amid_the_repair_is_mended_by_the_next_one(core, redis):
    job_id = core.create("audio")
    redis.delete(LIST)
    with meanwhile(core.engine, "mirrored\n  AND queued_at <= now()", lambda: spoil(redis, LIST)):
        assert sum(reconcile(core.runtime.engine, core.runtime.mirror)) == 0
    reconcile(core.runtime.engine, core.runtime.mirror)
    assert redis.lrange(LIST, 0, -1) == [job_id]


def test_a_bad_key_is_no_outage_and_a_refusal_is():
    breaker = RedisBreaker()
    breaker.failed("push", redis_py.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"))
    assert not breaker.lost
    breaker.failed("push", redis_py.ResponseError("MISCONF Redis is configured to save RDB snapshots"))
    assert breaker.lost


def test_a_redis_that_refuses_to_tell_who_was_seen_is_no_empty_list(servers, redis):
    redis.acl_setuser("blind", enabled=True, passwords=["+x"], commands=["+ping", "+client", "+hello", "+info"])
    try:
        place = servers.redis_url.rpartition("@")[2].removeprefix("redis://")
        seen = WorkerRegistry(f"redis://blind:x@{place}", "bad-keys", "p1")
        for read in (seen.read, seen.parked):
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                read("t")
    finally:
        redis.acl_deluser("blind")


@pytest.mark.parametrize(
    "name",
    ["core:{", "core:{x", "core:{\x00:audio}:pending:normal", "core:{A:b}:pending:high", b"core:{\xff:a}:pending:low"],
)
def test_a_key_whose_name_is_no_queue_is_left_alone(core, redis, name):
    job_id = core.create("audio")
    redis.delete(LIST)
    redis.rpush(name, "x")
    assert reconcile(core.runtime.engine, core.runtime.mirror).missing == 1
    assert redis.lrange(LIST, 0, -1) == [job_id]
    redis.delete(name)


def test_other_sweeps_go_on(core, redis):
    spoil(redis, LIST)
    for kind in ("audio", "video"):
        core.create(kind, available_at="2999-01-01T00:00:00+00:00")
    core.sql("UPDATE remote_jobs SET available_at = now(), queued_at = now()")
    assert release_due(core.runtime.engine, core.runtime.mirror) == 2
    assert redis.llen("core:{default:video}:pending:normal") == 1


@pytest.mark.parametrize("kind", ["string", "list", "hash"])
def test_who_was_seen_is_known_again_with_the_next_write(servers, redis, kind):
    seen = WorkerRegistry(servers.redis_url, "bad-keys", "p1")
    w1 = Worker(UUID(int=1), "w1")
    for key in ("bad-keys:workers:{t}:seen", "bad-keys:workers:{t}:asks", "bad-keys:parked"):
        for existing in redis.scan_iter("bad-keys:*"):
            redis.delete(existing)
        spoil(redis, key, kind)
        assert seen.read("t") == {}
        assert seen.parked("t") == 0
        for _ in range(2):
            seen.note("t", w1, ["audio"])
            seen.write()
            seen.write_parked({"t": 3})
        assert list(seen.read("t")) == [w1]
        assert seen.parked("t") == 3


def test_what_cannot_be_read_of_one_worker_or_process_hides_no_other(servers, redis):
    seen = WorkerRegistry(servers.redis_url, "bad-values", "p1")
    w1 = Worker(UUID(int=1), "w1")
    seen.note("t", w1, ["audio"])
    seen.write()
    seen.write_parked({"t": 3})
    for number, told in enumerate(["x", "[]", "[1, 2]", '[["a"], [7]]', "null", b"\xff", '{"a": 1, "b": 2}']):
        member = f"{UUID(int=7)}/bad-{number}"
        redis.zadd("bad-values:workers:{t}:seen", {member: time.time(), f"no-uuid-{number}": time.time()})
        redis.hset("bad-values:workers:{t}:asks", mapping={member: told, f"no-uuid-{number}": "[[], []]"})
        redis.hset("bad-values:parked", f"p-{number}", told)
    for number, polls in enumerate([7, [], {"t": "x"}, {"t": None}, {"t": 1e999}]):
        redis.hset("bad-values:parked", f"q-{number}", json.dumps([time.time(), polls]))
    assert list(seen.read("t")) == [w1]
    assert seen.parked("t") == 3


def test_a_counter_that_is_none_is_counted_here_alone_and_the_others_are_shared(make_runtime, redis):
    one, other = (Limits(make_runtime(name, redis_prefix="core", limits="failures=3")) for name in ("p1", "p2"))
    minute = int(time.time()) // 60
    for at in range(minute, minute + 3):
        redis.set(f"core:limits:failures:spoilt:{at}", "x")

    def both_refuse() -> bool:  # again where a minute ended meanwhile
        for limits in (one, other, one):
            for address in ("spoilt", "10.0.0.1"):
                refuses(limits, address)
            limits.share()
        return all(refuses(limits, "10.0.0.1") for limits in (one, other))

    wait_until(both_refuse, "each to know what the other counted")
    assert not one._runtime.mirror.breaker.lost


def refuses(limits: Limits, address: str) -> bool:
    return outcome_of(lambda: limits.failure(address)) == TooMany.code


def test_a_job_whose_list_is_none_is_claimed_within_two_seconds_and_nothing_is_a_500(bridge, client, redis):
    prefix = bridge.settings.redis_prefix
    keys = [f"{prefix}:{{{client.tenant}:audio}}:pending:{rank}" for rank in ("normal", "high", "low")]
    database = redis.__class__.from_url(bridge.settings.redis_url, decode_responses=True)
    for key in keys:
        spoil(database, key, "hash")
    spoil(database, f"{prefix}:workers:{{{client.tenant}}}:seen")
    at_once = client.create()
    assert client.claim(wait=0)["job_id"] == at_once
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(lambda: (client.claim(wait=30)["job_id"], time.monotonic()))
        began = time.monotonic()
        job_id = client.create()
        taken, at = poll.result(30)
    assert taken == job_id
    assert at - began < 12  # two seconds, on a busy machine; repair comes after fifteen
    assert client.get("/api/v1/workers").status_code == 200
    assert ok(client.get("statistics"))["parked_polls"] is not None
    wait_until(lambda: database.type(keys[0]) != "hash", "repair to mend it")
    database.close()
