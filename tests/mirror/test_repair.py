"""The mirror is made to agree with PostgreSQL, in bounded steps; what it lacks costs time, what is surplus nothing."""

from dataclasses import replace
from typing import Any

import pytest

from bridge.mirror import reconcile as module
from bridge.mirror.lists import Mirror
from bridge.mirror.reconcile import HEAD, Repaired, reconcile
from bridge.mirror.release_due import release_due
from bridge.queues import Entry, Queue
from models.job_state import Priority
from tests.support.waiting import wait_until

AUDIO = Queue("default", "audio")
LIST = "core:{default:audio}:pending:normal"


def head_first(redis, key: str = LIST) -> list[str]:
    return redis.lrange(key, 0, -1)[::-1]


def test_a_lost_mirror_is_rebuilt_in_the_order_of_the_queue(core, redis):
    normal = [core.create() for _ in range(5)]
    high = core.create(priority="high")
    video = core.create("video")
    returned = core.held()
    core.release(returned)
    core.age(returned.job_id, 100)
    later = "UPDATE remote_jobs SET available_at = now() + interval '1 h', mirrored = false WHERE id = :id"
    core.sql(later, id=normal[0])
    redis.delete(*redis.keys("core:*"))
    assert reconcile(core.runtime.engine, core.runtime.mirror).rebuilt == 7
    assert head_first(redis) == [str(returned.job_id), *normal[1:]]
    assert head_first(redis, "core:{default:audio}:pending:high") == [high]
    assert head_first(redis, "core:{default:video}:pending:normal") == [video]
    assert redis.exists("core:epoch")
    assert not redis.exists("core:rebuilding")


def test_a_rebuild_that_another_process_is_at_is_left_to_it(core, redis):
    core.create()
    redis.delete("core:epoch", LIST)
    redis.set("core:rebuilding", "another")
    assert reconcile(core.runtime.engine, core.runtime.mirror) == Repaired()
    assert not redis.exists(LIST)


def test_a_rebuild_whose_process_was_killed_is_done_by_another_when_its_lock_ends(core, redis):
    core.create()
    redis.delete("core:epoch", LIST)
    assert core.runtime.mirror.lock_rebuild(1)  # and never heard of again
    assert reconcile(core.runtime.engine, core.runtime.mirror) == Repaired()
    wait_until(lambda: reconcile(core.runtime.engine, core.runtime.mirror).rebuilt == 1, "the lock to end")
    assert redis.exists("core:epoch")


def test_a_rebuild_that_has_lost_its_lock_stops_and_leaves_it_to_its_holder(core, redis, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 1)
    ids = [core.create() for _ in range(3)]
    redis.delete("core:epoch", LIST)
    mirror, push = core.runtime.mirror, Mirror.push_older

    def slow_push(*args):
        push(*args)
        redis.set("core:rebuilding", "another")  # its own has ended meanwhile

    monkeypatch.setattr(Mirror, "push_older", slow_push)
    assert reconcile(core.runtime.engine, mirror) == Repaired(rebuilt=1)
    assert redis.get("core:rebuilding") == "another"
    assert not redis.exists("core:epoch")
    monkeypatch.undo()
    redis.delete("core:rebuilding")
    assert reconcile(core.runtime.engine, mirror).rebuilt == 2, "it goes on where the first one was"
    assert head_first(redis) == ids


def test_a_rebuild_that_is_too_long_for_one_run_is_gone_on_with_by_the_next(core, redis, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    normal = [core.create() for _ in range(5)]
    high = [core.create(priority="high") for _ in range(2)]
    video = [core.create("video") for _ in range(3)]
    redis.delete(*redis.keys("core:*"))
    runs: list[Any] = []
    arrived = []
    while not redis.exists("core:epoch") and len(runs) < 30:
        runs.append(reconcile(core.runtime.engine, core.runtime.mirror, rebuild_seconds=0))
        assert not redis.exists("core:rebuilding")
        if len(runs) == 4:
            arrived.append(core.create())
    assert {run.rebuilt for run in runs} <= {0, 1, 2}, "one batch a run"
    assert sum(run.rebuilt for run in runs) == 10
    assert sum(run.missing + run.surplus for run in runs) == 0
    assert head_first(redis) == normal + arrived
    assert head_first(redis, "core:{default:audio}:pending:high") == high
    assert head_first(redis, "core:{default:video}:pending:normal") == video
    assert reconcile(core.runtime.engine, core.runtime.mirror) == Repaired()


def test_a_rebuild_starts_anew_when_redis_is_lost_again_and_when_the_next_mirror_is(core, redis, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    ids = [core.create() for _ in range(5)]
    redis.delete("core:epoch")
    for _ in range(3):
        reconcile(core.runtime.engine, core.runtime.mirror, rebuild_seconds=0)
    assert redis.lrange(LIST, 0, -1), "it has come somewhere"
    redis.delete(*redis.keys("core:*"))
    assert reconcile(core.runtime.engine, core.runtime.mirror).rebuilt == 5
    redis.delete("core:epoch", LIST)
    assert reconcile(core.runtime.engine, core.runtime.mirror).rebuilt == 5
    assert head_first(redis) == ids


def test_a_missing_id_comes_back_to_its_place_at_the_head(core, redis):
    ids = [core.create() for _ in range(3)]
    redis.lrem(LIST, 0, ids[0])
    assert reconcile(core.runtime.engine, core.runtime.mirror).missing == 1
    assert head_first(redis) == ids


def test_surplus_ids_near_the_head_are_taken_out(core, redis):
    ids = [core.create() for _ in range(2)]
    finished = core.held("w1")
    core.result(finished)
    redis.rpush(LIST, str(finished.job_id), "0" * 36, "no id at all")
    assert reconcile(core.runtime.engine, core.runtime.mirror).surplus == 3
    assert head_first(redis) == ids


def test_a_missing_id_in_a_long_list_is_found_when_it_comes_near_the_head(core, redis):
    ids = [core.create() for _ in range(HEAD + 20)]
    redis.lrem(LIST, 0, ids[-5])
    assert reconcile(core.runtime.engine, core.runtime.mirror).missing == 0
    redis.lrem(LIST, 0, ids[3])
    assert reconcile(core.runtime.engine, core.runtime.mirror).missing == 1
    assert head_first(redis) == [job_id for job_id in ids if job_id != ids[-5]]
    for job_id in ids[:30]:
        core.cancel(job_id)
    reconcile(core.runtime.engine, core.runtime.mirror)
    assert head_first(redis) == ids[30:]


def test_what_a_dead_process_had_taken_goes_back_at_the_second_look(core, redis, servers):
    taken, kept = core.create(), core.create()
    dead = Mirror(servers.redis_url, "core", "dead")
    assert dead.take({AUDIO: 1}).entries == [Entry(AUDIO, Priority.NORMAL, taken)]
    # It would be found by comparing heads as well: here only what was left over is looked at.
    redis.rpush(LIST, taken)
    first = reconcile(core.runtime.engine, core.runtime.mirror)
    assert (first.returned, redis.lrange("core:{default:audio}:claimed:dead", 0, -1)) == (0, [taken])
    redis.lrem(LIST, 0, taken)
    redis.rpush(LIST, taken)
    assert reconcile(core.runtime.engine, core.runtime.mirror).returned == 1
    assert redis.keys("core:*:claimed:*") == []
    assert set(head_first(redis)) == {taken, kept}


def test_what_was_left_over_and_is_not_pending_any_more_is_forgotten(core, redis):
    job = core.held()
    redis.lpush("core:{default:audio}:claimed:dead", str(job.job_id), "garbage")
    reconcile(core.runtime.engine, core.runtime.mirror)
    assert reconcile(core.runtime.engine, core.runtime.mirror).returned == 0
    assert redis.keys("core:*:claimed:*") == []
    assert head_first(redis) == []


def test_a_claim_under_way_at_one_look_is_no_left_over(core, redis, servers):
    job_id = core.create()
    living = Mirror(servers.redis_url, "core", "living")
    entries = living.take({AUDIO: 1}).entries
    reconcile(core.runtime.engine, core.runtime.mirror)
    living.settle(entries)
    core.claim(job_id)
    assert reconcile(core.runtime.engine, core.runtime.mirror).returned == 0


def test_jobs_that_become_due_are_mirrored_in_the_order_of_their_age(core, redis):
    first, second = core.held("w1"), core.held("w2")
    for job in (second, first):
        core.result(job, success=False)
    assert head_first(redis) == []
    assert release_due(core.runtime.engine, core.runtime.mirror) == 0
    core.age(first.job_id, 30)
    core.age(second.job_id, 20)
    assert release_due(core.runtime.engine, core.runtime.mirror) == 2
    assert head_first(redis) == [str(first.job_id), str(second.job_id)]
    assert release_due(core.runtime.engine, core.runtime.mirror) == 0


def test_a_due_job_that_was_claimed_meanwhile_is_not_mirrored(core, redis):
    job = core.held("w1")
    core.result(job, success=False)
    core.age(job.job_id, 30)
    assert core.claim(str(job.job_id), "w2") is not None
    assert release_due(core.runtime.engine, core.runtime.mirror) == 0
    assert head_first(redis) == []


def test_redis_away_loses_nothing_and_slows_nobody_down(core):
    core.runtime = replace(core.runtime, mirror=Mirror("redis://127.0.0.1:1/0", "core", "p1"))
    job_id = core.create()
    assert core.runtime.mirror.breaker.away
    assert core.result(core.claim(job_id)).status == "completed"


def test_a_redis_that_may_evict_lists_is_warned_of(own_bridge, own_servers):
    servers = own_servers(postgres=False, redis_options={"maxmemory-policy": "allkeys-lru"})
    bridge = own_bridge(redis_url=servers.redis_url, broker_url=servers.redis_url, celery=False, beat=False)
    log = bridge.settings.data_dir / "logs" / "api.log"
    wait_until(lambda: "maxmemory-policy to noeviction" in log.read_text(), "the warning")


def test_the_epoch_missing_means_that_nothing_is_taken(core, redis):
    job_id = core.create()
    redis.delete("core:epoch")
    assert core.runtime.mirror.take({AUDIO: 5}) == ([], False)
    assert head_first(redis) == [job_id]
    assert redis.keys("core:*:claimed:*") == []


def test_taking_goes_by_priority_and_putting_back_restores_the_order(core, redis):
    low = core.create(priority="low")
    normal = [core.create() for _ in range(2)]
    high = core.create(priority="high")
    mirror = core.runtime.mirror
    taken = mirror.take({AUDIO: 3}).entries
    assert [entry.job_id for entry in taken] == [high, *normal]
    mirror.put_back(taken)
    assert head_first(redis) == normal
    assert [entry.job_id for entry in mirror.take({AUDIO: 10}).entries] == [high, *normal, low]


@pytest.mark.scale
def test_a_million_pending_jobs_are_rebuilt_and_compared_without_reading_a_whole_list(core, redis):
    job_id = core.create()
    core.age(job_id, 3600)  # the others are a millisecond apart
    columns = [row.column_name for row in core.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'remote_jobs'")]  # fmt: skip
    copied = ", ".join({"id": "uuidv7()", "queued_at": "queued_at + make_interval(secs => n / 1000.0)"}.get(c, c)
                       for c in columns)  # fmt: skip
    core.sql(f"SET LOCAL statement_timeout = 0; INSERT INTO remote_jobs ({', '.join(columns)})"
             f" SELECT {copied} FROM remote_jobs, generate_series(1, 999999) n")  # fmt: skip
    core.sql("ANALYZE remote_jobs")
    redis.delete("core:epoch", LIST)
    calls = redis.info("commandstats")
    rebuilt = 0
    while not redis.exists("core:epoch"):  # a run ends by itself after a while; the next one goes on
        rebuilt += reconcile(core.runtime.engine, core.runtime.mirror).rebuilt
    assert rebuilt == 1_000_000
    assert redis.llen(LIST) == 1_000_000
    assert redis.lindex(LIST, -1) == job_id
    redis.rpop(LIST)
    rows_before = read_rows(core)
    assert reconcile(core.runtime.engine, core.runtime.mirror).missing == 1
    assert read_rows(core) - rows_before < 5000
    after = redis.info("commandstats")
    assert after["cmdstat_rpush"]["calls"] - calls.get("cmdstat_rpush", {"calls": 0})["calls"] < 1100
    assert redis.lindex(LIST, -1) == job_id


def read_rows(core) -> int:
    """Rows that this database has read so far from remote_jobs, by whatever scan."""
    core.sql("SELECT pg_stat_force_next_flush()")
    read = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'remote_jobs'"
    return core.sql(read)[0][0]
