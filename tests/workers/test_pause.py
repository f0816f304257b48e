"""Workers that are given no jobs: paused by an operator, or by the bridge after failures."""

import pytest

from bridge.admission import keys
from bridge.errors import Invalid
from bridge.workers.pauses import Pause, now_paused, pause, resume
from bridge.workers.quarantine import watch
from tests.support.core import KEY, OTHER_KEY, Core


def pauses(core) -> list[Pause]:
    with core.engine.connect() as connection:
        return now_paused(connection)


def paused_workers(core) -> list[tuple[str, str]]:
    return [(one.worker_id, one.by) for one in pauses(core)]


def seconds_left(core) -> float:
    [one] = pauses(core)
    assert one.seconds_left is not None
    return one.seconds_left


def fail(core, worker="w1", **said):
    job = core.held(worker)
    core.result(job, success=False, **said)
    return job


def miss(core, worker="w1"):
    job = core.held(worker, acknowledge=False)
    core.age(job.job_id, 61)
    core.expire()
    core.cancel(job.job_id)


def over(core):
    """Let the pause end, and what preceded it lie a while back."""
    core.sql("UPDATE worker_pauses SET until = now(), paused_at = paused_at - interval '1 hour'")


@pytest.mark.parametrize("bad", [Core.lost, fail, miss])
def test_three_bad_claims_in_a_row_pause_a_worker(core, bad):
    bad(core)
    bad(core)
    assert watch(core.runtime) == 0
    bad(core)
    assert watch(core.runtime) == 1
    assert paused_workers(core) == [("w1", "bridge")]
    assert 28 < seconds_left(core) <= 30


def test_bad_claims_of_each_kind_count_together_and_those_of_others_do_not(core):
    core.lost()
    fail(core)
    core.lost(worker="w2")
    core.result(core.held("w1"), key=KEY)
    assert watch(core.runtime) == 0
    fail(core)
    miss(core)
    core.lost()
    watch(core.runtime)
    assert paused_workers(core) == [("w1", "bridge")]


def test_a_failure_after_some_work_is_no_trouble(core):
    for _ in range(3):
        job = core.held()
        core.age(job.job_id, 5)
        core.result(job, success=False)
    assert watch(core.runtime) == 0


def test_what_a_worker_calls_not_retryable_is_the_files_fault_and_passed_over(core):
    for _ in range(5):
        fail(core, retryable=False)
    assert watch(core.runtime) == 0
    fail(core)
    fail(core, retryable=False)
    core.lost()
    assert watch(core.runtime) == 0, "two bad claims, with a bad file between"
    fail(core, retryable=False)
    fail(core)
    assert watch(core.runtime) == 1
    assert paused_workers(core) == [("w1", "bridge")]


def test_a_late_failure_that_is_not_retryable_takes_the_loss_back(core):
    fail(core)
    fail(core)
    job = core.lost()
    core.result(job, success=False, retryable=False)
    assert watch(core.runtime) == 0


def test_released_claims_are_no_trouble(core):
    for _ in range(3):
        core.release(core.held())
    assert watch(core.runtime) == 0


def test_one_job_that_fails_again_and_again_is_not_held_against_its_worker(core):
    job_id = core.create(max_retries=9)
    for _ in range(4):
        core.age(job_id, 5000)
        core.result(core.claim(job_id), success=False)
    assert watch(core.runtime) == 0


def test_pauses_grow_until_a_success(core):
    for _ in range(3):
        fail(core)
    watch(core.runtime)
    for seconds in (60, 120, 240):
        over(core)
        assert watch(core.runtime) == 0, "what was claimed before the pause ended does not count again"
        fail(core)
        watch(core.runtime)
        assert seconds - 2 < seconds_left(core) <= seconds
    core.sql("UPDATE worker_pauses SET in_a_row = 50, until = now()")
    fail(core)
    watch(core.runtime)
    assert 3595 < seconds_left(core) <= 3600
    core.result(core.held())
    assert watch(core.runtime) == 1
    assert core.sql("SELECT * FROM worker_pauses") == []


@pytest.mark.parametrize(
    ("first", "others"), [(Core.held, [fail] * 3), (Core.lost, [Core.lost] * 2)], ids=["of a job in hand", "late"]
)
def test_a_success_ends_the_pause(core, first, others):
    job = first(core)
    for bad in others:
        bad(core)
    watch(core.runtime)
    assert paused_workers(core) == [("w1", "bridge")]
    core.result(job)
    watch(core.runtime)
    assert paused_workers(core) == []
    assert watch(core.runtime) == 0


def test_a_late_success_of_whatever_age_is_the_end_of_a_streak(core):
    job = core.lost()
    core.age(job.job_id, 50)
    core.lost()
    miss(core)
    core.lost()
    core.result(job)
    assert watch(core.runtime) == 0
    core.lost()
    core.lost()
    assert watch(core.runtime) == 0
    core.lost()
    assert watch(core.runtime) == 1


def test_the_trouble_of_one_key_is_not_the_others(core):
    for _ in range(3):
        job = core.claim(core.create(), key=OTHER_KEY)
        core.result(job, key=OTHER_KEY, success=False)
    watch(core.runtime)
    [one] = pauses(core)
    assert one.covers(OTHER_KEY.key_id)
    assert not one.covers(KEY.key_id)


def test_a_pause_by_an_operator_ends_by_itself_or_by_a_resume(core):
    pause(core.runtime, "default", "w1", "disk full")
    pause(core.runtime, "default", "w2", "restart", 60)
    assert paused_workers(core) == [("w1", "operator"), ("w2", "operator")]
    core.sql("UPDATE worker_pauses SET until = now() WHERE worker_id = 'w2'")
    resume(core.runtime, "default", "w1")
    assert paused_workers(core) == []
    watch(core.runtime)
    assert core.sql("SELECT * FROM worker_pauses") == []


def test_a_resume_ends_a_pause_by_the_bridge_and_does_not_hold_the_past_against_the_worker(core):
    for _ in range(3):
        fail(core)
    watch(core.runtime)
    resume(core.runtime, "default", "w1")
    assert paused_workers(core) == []
    assert watch(core.runtime) == 0
    fail(core)
    watch(core.runtime)
    assert 28 < seconds_left(core) <= 30, "the first pause after a resume is a short one"


def test_a_pause_for_an_unknown_key_is_refused(core):
    with pytest.raises(Invalid):
        pause(core.runtime, "default", "w1", "why", None, "jb_00000000")


def test_a_success_does_not_end_a_pause_by_an_operator(core):
    job = core.held()
    pause(core.runtime, "default", "w1", "why")
    core.result(job)
    watch(core.runtime)
    assert paused_workers(core) == [("w1", "operator")]


def test_a_resume_ends_what_is_on_of_its_worker_in_its_tenant(core):
    for number in range(3):
        for worker in ("w1", "w2"):
            fail(core, worker)
        assert watch(core.runtime) == (2 if number == 2 else 0)
    for tenant, worker in ((core.tenant, "w1"), (core.tenant, "w2"), ("elsewhere", "w1")):
        pause(core.runtime, tenant, worker, "dust")
    its = "worker_id = 'w2' AND by = 'bridge'"
    core.sql(f"UPDATE worker_pauses SET until = now() - interval '1 minute' WHERE {its}")
    before = core.sql(f"SELECT until, in_a_row FROM worker_pauses WHERE {its}")
    resume(core.runtime, core.tenant, "w1")
    assert sorted(paused_workers(core)) == [("w1", "operator"), ("w2", "operator")]
    kept = core.sql("SELECT tenant, by FROM worker_pauses WHERE worker_id = 'w1' ORDER BY 1")
    assert kept == [("default", "bridge"), ("elsewhere", "operator")], "the bridge's is ended, not deleted"
    resume(core.runtime, core.tenant, "w2")
    assert paused_workers(core) == [("w1", "operator")]
    assert core.sql(f"SELECT until, in_a_row FROM worker_pauses WHERE {its}") == before


def test_a_resume_of_one_key_leaves_the_pause_of_another(core):
    with core.engine.begin() as connection:
        made = [keys.create_key(connection, "test", ["work"], core.tenant) for _ in range(2)]
    first, second = (keys.prefix_of(key) for key in made)
    for prefix in (first, second):
        pause(core.runtime, core.tenant, "w1", "dust", prefix=prefix)
    resume(core.runtime, core.tenant, "w1", first)
    assert len(paused_workers(core)) == 1
