"""Ageing priorities: what waits too long in a list of a lower priority joins the next one; off unless it is set."""

from dataclasses import replace

import pytest

from bridge.jobs.raise_priority import raise_priorities
from bridge.mirror.lists import Mirror
from bridge.mirror.reconcile import Repaired, reconcile
from bridge.queues import Queue
from bridge.settings import SettingsError, load_settings
from tests.support.client import ok
from tests.support.core import Core
from tests.support.waiting import wait_until

AUDIO = Queue("default", "audio")
AGE = 100  # seconds


@pytest.fixture
def ageing(make_runtime):
    return Core(make_runtime(priority_aging_seconds=str(AGE)))


def wait_for(core, seconds, *job_ids):
    """Make these jobs look as if they had waited that much longer."""
    core.sql(
        "UPDATE remote_jobs SET queued_at = queued_at - make_interval(secs => :seconds)"
        " WHERE id = ANY(CAST(:ids AS uuid[]))",
        seconds=seconds,
        ids=list(job_ids),
    )


def ranks(core, *job_ids):
    return [core.row(job_id).priority for job_id in job_ids]


def mirrored(core):
    """Return what Redis would give, in order, and leave the lists unchanged."""
    taken = core.runtime.mirror.take({AUDIO: 100}).entries
    core.runtime.mirror.put_back(taken)
    return [(entry.job_id, str(entry.priority)) for entry in taken]


def test_off_nothing_rises_however_long_it_waits(core):
    low = core.create(priority="low")
    wait_for(core, 10_000_000, low)
    assert raise_priorities(core.runtime) == 0
    assert ranks(core, low) == [2]


def test_a_job_rises_by_one_priority_for_each_age_that_it_waits(ageing):
    low, normal, high = (ageing.create(priority=name) for name in ("low", "normal", "high"))
    assert raise_priorities(ageing.runtime) == 0
    wait_for(ageing, AGE - 10, low, normal)
    assert raise_priorities(ageing.runtime) == 0
    wait_for(ageing, 11, low, normal, high)
    assert raise_priorities(ageing.runtime) == 2
    assert ranks(ageing, low, normal, high) == [1, 0, 0]
    assert raise_priorities(ageing.runtime) == 0, "each step takes an age of its own"
    wait_for(ageing, AGE + 1, low, normal)
    assert raise_priorities(ageing.runtime) == 1
    assert ranks(ageing, low, normal) == [0, 0], "and none goes beyond the highest"


def test_it_joins_the_end_of_the_next_list_in_redis_and_in_postgresql_alike(ageing):
    old = [ageing.create(priority="low") for _ in range(3)]
    young = ageing.create(priority="low")
    there = [ageing.create() for _ in range(2)]
    wait_for(ageing, AGE + 1, *old)
    assert raise_priorities(ageing.runtime) == 3
    later = ageing.create()
    order = [*there, *old, later, young]
    in_redis = [job_id for job_id, _ in mirrored(ageing)]
    assert in_redis[:2] == there
    assert set(in_redis[2:5]) == set(old)
    assert in_redis[5:] == [later, young]
    assert sorted(ageing.next(count=100)) == sorted(order)
    assert [set(ageing.next(count=100)[2:5]), *ageing.next(count=100)[5:]] == [set(old), later, young]
    assert reconcile(ageing.engine, ageing.runtime.mirror) == Repaired(), "nothing is missing, nothing is surplus"


def test_with_redis_away_postgresql_goes_by_the_raised_priority(ageing):
    runtime = ageing.runtime
    away = Core(replace(runtime, mirror=Mirror("redis://127.0.0.1:1/0", "core", "p1")))
    low, fresh = away.create(priority="low"), away.create(priority="low")
    normal = away.create()
    wait_for(away, AGE + 1, low)
    assert raise_priorities(away.runtime) == 1
    assert away.next() == [normal, low, fresh]
    assert reconcile(runtime.engine, runtime.mirror).missing == 3, "Redis is told on its return"
    assert runtime.mirror.heads(AUDIO, 10) == {"high": [], "normal": [normal, low], "low": [fresh]}


def test_ids_that_did_not_change_lists_are_moved_by_repair(ageing, monkeypatch):
    low, normal = ageing.create(priority="low"), ageing.create()
    wait_for(ageing, AGE + 1, low)
    with monkeypatch.context() as lost:  # as in a process that dies after the commit
        lost.setattr(Mirror, "drop", lambda *_: None)
        lost.setattr(Mirror, "push", lambda *_: None)
        raise_priorities(ageing.runtime)
    assert mirrored(ageing) == [(normal, "normal"), (low, "low")]
    repaired = reconcile(ageing.engine, ageing.runtime.mirror)
    assert (repaired.missing, repaired.surplus) == (1, 1)
    assert sorted(mirrored(ageing)) == sorted([(normal, "normal"), (low, "normal")])
    assert reconcile(ageing.engine, ageing.runtime.mirror) == Repaired()


def test_what_is_not_pending_or_not_yet_due_does_not_rise(ageing):
    held, done = ageing.held(priority="low"), ageing.held(priority="low")
    ageing.result(done)
    later = ageing.create(priority="low")
    ageing.sql(
        "UPDATE remote_jobs SET available_at = now() + interval '1 h', queued_at = now() + interval '1 h',"
        " mirrored = false WHERE id = :id",
        id=later,
    )
    wait_for(ageing, AGE + 1, str(held.job_id), str(done.job_id))
    assert raise_priorities(ageing.runtime) == 0
    assert ranks(ageing, held.job_id, done.job_id, later) == [2, 2, 2]


def test_a_job_that_is_being_changed_is_left_for_the_next_run(ageing):
    locked, free = (ageing.create(priority="low") for _ in range(2))
    wait_for(ageing, AGE + 1, locked, free)
    with ageing.engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM remote_jobs WHERE id = %s FOR UPDATE", (locked,))
        assert raise_priorities(ageing.runtime) == 1
    assert raise_priorities(ageing.runtime) == 1


def test_a_run_goes_in_batches_and_leaves_to_the_next_what_is_too_long_for_one(ageing):
    jobs = [ageing.create(priority=name) for name in ("low", "normal") for _ in range(5)]
    wait_for(ageing, AGE + 1, *jobs)
    assert raise_priorities(ageing.runtime, batch=2, run_seconds=0) == 0
    assert raise_priorities(ageing.runtime, batch=2) == 10
    assert sorted(ranks(ageing, *jobs)) == [0] * 5 + [1] * 5


def test_every_tenant_and_type_by_itself(ageing):
    other = Core(ageing.runtime, "other")
    raised = [ageing.create("video", priority="low"), other.create(priority="low")]
    kept = [ageing.create(priority="low"), other.create("video", priority="low")]
    wait_for(ageing, AGE + 1, *raised)
    assert raise_priorities(ageing.runtime) == 2
    assert ranks(ageing, *raised, *kept) == [1, 1, 2, 2]


def test_a_claim_shows_the_priority_that_was_asked_for_and_a_retry_begins_with_it(ageing):
    low, returned = (ageing.create(priority="low") for _ in range(2))
    wait_for(ageing, AGE + 1, low, returned)
    raise_priorities(ageing.runtime)
    job = ageing.claim(low, acknowledge=True)
    assert job.priority == 2
    ageing.result(job, success=False)
    assert ranks(ageing, low) == [2]
    ageing.release(ageing.claim(returned, acknowledge=True))
    assert ranks(ageing, returned) == [1], "given back to the head, it has the place that it had"
    ageing.cancel(returned)
    ageing.restart(returned)
    assert ranks(ageing, returned) == [2]
    assert reconcile(ageing.engine, ageing.runtime.mirror) == Repaired()


@pytest.mark.parametrize("bad", ["0", "-1", "x", "1.5", "9999999999"])
def test_a_bad_age_stops_the_start(bad):
    with pytest.raises(SettingsError, match="BRIDGE_PRIORITY_AGING_SECONDS"):
        load_settings({"BRIDGE_PRIORITY_AGING_SECONDS": bad})


@pytest.mark.slow
def test_in_a_whole_bridge_a_low_job_is_served_though_high_ones_keep_coming(own_bridge):
    client = own_bridge(priority_aging_seconds="1", api_processes="1").client()
    client.create("image", priority="low")
    for _ in range(3):
        client.create("image", priority="high")
    [low] = ok(client.get("", params={"status": "pending", "limit": 500}))["jobs"][-1:]
    raised = "raised from low by its age"
    wait_until(lambda: raised in ok(client.get(f"{low['job_id']}/explain"))["sentences"][0], "its rise")
    assert client.job(low["job_id"])["priority"] == "low"

    def served():
        job = client.held("image", priority="high")
        ok(client.result(job))
        return job if job["job_id"] == low["job_id"] else None

    assert wait_until(served, "the low job's turn")["priority"] == "low"
