"""A job that three different workers lost is not handed to a fourth."""

import pytest

from bridge.jobs.expire import expire
from tests.support.core import KEY, OTHER_KEY, Core


def lose(core, job_id, *workers, key=KEY):
    """Let each of these workers claim the job, show a sign of life, and fall silent."""
    for worker in workers:
        core.age(job_id, 5000)  # beyond any backoff
        job = core.claim(str(job_id), worker, key=key, acknowledge=True)
        assert job is not None, f"{worker} did not get it"
        core.expire_after(job_id)


def fail(core, job_id, worker):
    core.age(job_id, 5000)
    core.result(core.claim(str(job_id), worker), success=False)


def new(core, **fields):
    usual = {"max_retries": 10, "timeout_seconds": 100000, "queue_timeout_seconds": 1000000}
    return core.create(**{**usual, **fields})


def lost_twice(core, **fields):
    job_id = new(core, **fields)
    lose(core, job_id, "w1", "w2")
    core.age(job_id, 5000)
    return job_id


def test_a_job_lost_by_three_different_workers_fails_with_retries_left(core):
    job_id = lost_twice(core)
    assert core.status(job_id) == "pending"
    lose(core, job_id, "w3")
    row = core.row(job_id)
    assert (row.status, row.retry_count) == ("failed", 2)
    assert "3 different workers" in row.error_message
    assert core.hows(job_id) == ["lease_expired"] * 3
    assert core.attempts(job_id)[-1].why == row.error_message
    assert [outcome.n for outcome in core.outcomes(job_id)] == [1]


def test_the_same_worker_again_and_again_is_no_poison(core):
    job_id = new(core)
    lose(core, job_id, "w1", "w2", "w1", "w2", "w1")
    assert core.status(job_id) == "pending"


def test_a_worker_is_its_key_and_its_name(core):
    job_id = lost_twice(core)
    lose(core, job_id, "w1", key=OTHER_KEY)
    assert core.status(job_id) == "failed"


def test_failures_between_the_losses_do_not_hide_them(core):
    job_id = new(core)
    lose(core, job_id, "w1")
    fail(core, job_id, "w9")
    lose(core, job_id, "w2")
    fail(core, job_id, "w1")
    lose(core, job_id, "w3")
    assert core.status(job_id) == "failed"


def test_what_was_never_acknowledged_or_failed_is_no_loss(core):
    job_id = new(core)
    lose(core, job_id, "w1", "w2")
    assert core.claim(job_id, "w3") is None  # the backoff
    core.age(job_id, 5000)
    core.claim(job_id, "w3")
    core.expire_after(job_id)
    fail(core, job_id, "w4")
    assert core.status(job_id) == "pending"
    assert core.hows(job_id)[2:] == ["unacknowledged", "failed"]


def test_after_an_operators_retry_the_count_begins_anew(core):
    job_id = new(core)
    lose(core, job_id, "w1", "w2", "w3")
    core.restart(job_id)
    lose(core, job_id, "w1", "w2")
    assert core.status(job_id) == "pending"
    lose(core, job_id, "w4")
    assert core.status(job_id) == "failed"


def test_without_retries_left_a_third_loss_is_poison_too(core):
    job_id = new(core, max_retries=2)
    lose(core, job_id, "w1", "w2", "w3")
    assert "different workers" in core.row(job_id).error_message


def test_returns_between_the_losses_do_not_hide_them(core):
    job_id = lost_twice(core)
    for worker in ("w4", "w5"):
        core.release(core.claim(job_id, worker))
    lose(core, job_id, "w3")
    assert core.hows(job_id) == ["lease_expired", "lease_expired", "released", "released", "lease_expired"]
    assert core.status(job_id) == "failed"


def test_a_third_worker_that_lives_keeps_the_job(core):
    job_id = lost_twice(core)
    core.heartbeat(core.claim(job_id, "w3"))
    assert core.expire() == 0
    assert core.status(job_id) == "processing"


def test_the_losses_of_another_job_do_not_count(core):
    other = new(core)
    lose(core, other, "w1", "w2", "w1", "w2")
    job_id = new(core)
    fail(core, job_id, "w3")
    fail(core, job_id, "w3")
    lose(core, job_id, "w3")
    assert core.status(job_id) == "pending"


@pytest.mark.parametrize(
    ("fields", "acknowledge", "seconds", "end"),
    [({}, False, 61, "pending"), ({"timeout_seconds": 100}, True, 101, "timeout")],
    ids=["unacknowledged", "deadline"],
)
def test_what_waits_for_the_next_batch_is_no_poison_meanwhile(core, fields, acknowledge, seconds, end):
    jobs = [lost_twice(core, **fields) for _ in range(2)]
    for job_id in jobs:
        core.claim(job_id, "w3", acknowledge=acknowledge)
        core.age(job_id, seconds)
    assert expire(core.runtime, batch=1, rounds=1) == 1
    assert sorted(core.status(job_id) for job_id in jobs) == sorted(["processing", end])


def test_without_a_pipelines_task_poison_records_no_outcome(make_runtime):
    core = Core(make_runtime(continuation_task=""))
    job_id = lost_twice(core)
    lose(core, job_id, "w3")
    assert core.status(job_id) == "failed"
    assert core.outcomes(job_id) == []


def test_a_loss_whose_result_came_late_is_none(core):
    job_id = new(core)
    for worker in ("w1", "w2"):
        job = core.claim(job_id, worker, acknowledge=True)
        core.expire_after(job_id)
        if worker == "w1":
            core.result(job, success=False)
        core.age(job_id, 5000)
    lose(core, job_id, "w3")
    assert core.hows(job_id) == ["failed", "lease_expired", "lease_expired"]
    assert core.status(job_id) == "pending"
