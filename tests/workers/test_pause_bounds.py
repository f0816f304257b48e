"""Names of workers are anything that a client sends: pauses of made-up ones are bounded, of each tenant by itself."""

import pytest

from bridge.errors import TooMany
from bridge.workers.pauses import now_paused, pause, resume
from bridge.workers.quarantine import watch
from tests.support.core import Core

MOST = 3


@pytest.fixture
def cores(make_runtime):
    """Two tenants, of which each may have three workers paused by the bridge."""
    runtime = make_runtime(limits=f"pauses={MOST}")
    return Core(runtime, "t1"), Core(runtime, "t2")


def fails(core, worker):
    """Three claims of a worker that fail at once."""
    for _ in range(3):
        core.result(core.held(worker), success=False)


def paused(core):
    with core.engine.connect() as connection:
        return sorted(pause.worker_id for pause in now_paused(connection, core.tenant))


def kept(core):
    """Return the stored pauses, whether active or over."""
    rows = core.sql("SELECT worker_id FROM worker_pauses WHERE tenant = :tenant ORDER BY 1", tenant=core.tenant)
    return [row.worker_id for row in rows]


def test_made_up_workers_fill_their_own_tenants_places_and_no_more(cores):
    mine, other = cores
    for number in range(6):
        fails(mine, f"w{number}")
    fails(other, "v0")
    assert watch(mine.runtime) == MOST + 1
    assert paused(mine) == ["w0", "w1", "w2"], "the first that were in trouble"
    assert paused(other) == ["v0"]
    assert watch(mine.runtime) == 0, "nothing goes to and fro while all places are taken"
    assert len(kept(mine)) == MOST


def test_a_place_that_is_free_again_goes_to_who_is_still_in_trouble(cores):
    mine, _ = cores
    for number in range(4):
        fails(mine, f"w{number}")
    watch(mine.runtime)
    mine.sql("UPDATE worker_pauses SET until = now() WHERE worker_id = 'w1'")
    watch(mine.runtime)
    assert paused(mine) == ["w0", "w2", "w3"]


def test_of_pauses_that_are_over_the_oldest_give_way(cores):
    mine, other = cores
    for turn in range(3):
        for number in range(MOST):
            fails(mine, f"w{turn}{number}")
        watch(mine.runtime)
        assert paused(mine) == [f"w{turn}{number}" for number in range(MOST)]
        older = [f"w{turn - 1}{number}" for number in range(MOST)] if turn else []
        assert kept(mine) == older + paused(mine), "those before them gave way"
        hour = "interval '1 hour'"
        mine.sql(f"UPDATE worker_pauses SET until = until - {hour}, paused_at = paused_at - {hour}")
        mine.sql(f"UPDATE job_attempts SET ended_at = ended_at - {hour}")
    assert kept(other) == []


def test_a_worker_that_fails_on_keeps_its_row_and_its_growing_pause(cores):
    mine, _ = cores
    for number in range(MOST):
        fails(mine, f"w{number}")
    watch(mine.runtime)
    mine.sql("UPDATE worker_pauses SET until = now(), paused_at = now() - interval '1 hour'")
    mine.result(mine.held("w1"), success=False)
    fails(mine, "w9")
    watch(mine.runtime)
    assert paused(mine) == ["w1", "w9"]
    assert [row.in_a_row for row in mine.sql("SELECT in_a_row FROM worker_pauses WHERE worker_id = 'w1'")] == [2]


def test_of_operators_pauses_those_that_are_on_and_of_other_workers_of_the_tenant_count(cores):
    mine, _ = cores
    fails(mine, "b0")
    assert watch(mine.runtime) == 1
    for number in range(MOST):
        pause(mine.runtime, "t1", f"w{number}", "dust")
    with pytest.raises(TooMany):
        pause(mine.runtime, "t1", "w3", "dust")
    pause(mine.runtime, "t1", "w0", "dust again")
    pause(mine.runtime, "t2", "w3", "dust")
    mine.sql("UPDATE worker_pauses SET until = now() WHERE worker_id = 'w1'")
    pause(mine.runtime, "t1", "w3", "dust")
    assert paused(mine) == ["b0", "w0", "w2", "w3"]
    resume(mine.runtime, "t1", "w2")
    pause(mine.runtime, "t1", "w4", "dust")
    assert paused(mine) == ["b0", "w0", "w3", "w4"]
