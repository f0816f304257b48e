"""The sweeps of the clocks when there is more than a batch: each takes only what is its own."""

import pytest

from bridge.jobs.expire import expire
from tests.support.core import Core


def one_batch_of_one(core: Core) -> int:
    return expire(core.runtime, batch=1, rounds=1)


def states(core: Core, jobs) -> list[str]:
    return sorted(core.status(job.job_id) for job in jobs)


@pytest.mark.parametrize(
    ("job", "seconds", "end", "retries"),
    [
        ({"acknowledge": False}, 61, "pending", 0),
        ({"acknowledge": False, "max_retries": 0}, 61, "pending", 0),
        ({"acknowledge": False, "max_retries": 1, "returns": 4}, 61, "pending", 1),
        ({"max_retries": 0}, 4000, "timeout", 0),
        ({"max_retries": 3}, 4000, "timeout", 0),
        ({"max_retries": 2}, 61, "pending", 1),
    ],
    ids=["return", "return without retries", "fifth return", "deadline without retries", "deadline", "lost lease"],
)
def test_what_waits_for_the_next_batch_is_not_ended_otherwise_meanwhile(core, job, seconds, end, retries):
    jobs = [core.held(f"w{n}", **job) for n in range(2)]
    for n, one in enumerate(jobs):
        core.age(one.job_id, seconds + n)
    assert one_batch_of_one(core) == 1
    assert states(core, jobs) == sorted(["processing", end])
    assert one_batch_of_one(core) == 1
    assert states(core, jobs) == [end, end]
    assert [core.row(one.job_id).retry_count for one in jobs] == [retries, retries]


def test_the_longest_overdue_comes_first_and_nothing_that_is_not_due(core):
    first, second, third = (core.held(f"w{n}", acknowledge=n > 0) for n in range(3))
    core.age(first.job_id, 50)
    core.age(second.job_id, 70)
    core.age(third.job_id, 80)
    assert one_batch_of_one(core) == 1
    assert core.status(third.job_id) == "pending"
    assert core.expire() == 1
    assert core.status(first.job_id) == "processing"
    assert core.expire() == 0


def test_a_pending_job_whose_queue_clock_runs_is_left_alone(core):
    fresh, old = core.create(), core.create()
    assert core.expire_after(old, 86401) == 1
    assert (core.status(fresh), core.status(old)) == ("pending", "timeout")


def test_a_row_that_somebody_is_changing_waits_for_the_next_run(core):
    job = core.held()
    core.age(job.job_id, 61)
    with core.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM remote_jobs WHERE id = '{job.job_id}' FOR UPDATE")
        assert core.expire() == 0
    assert core.expire() == 1


@pytest.mark.parametrize("max_retries", [0, 3])
@pytest.mark.parametrize("returns", [0, 4])
@pytest.mark.parametrize("acknowledge", [True, False])
def test_a_claim_whose_clocks_run_is_left_alone(core, max_retries, returns, acknowledge):
    job = core.held(returns=returns, max_retries=max_retries, acknowledge=acknowledge)
    assert core.expire_after(job.job_id, 50) == 0
    assert core.status(job.job_id) == "processing"


@pytest.mark.parametrize("max_retries", [0, 3])
def test_a_lost_lease_is_no_missed_acknowledgement_however_often_the_job_came_back(core, max_retries):
    job = core.held(returns=4, max_retries=max_retries)
    assert core.expire_after(job.job_id) == 1
    assert core.hows(job.job_id) == ["lease_expired"]
    assert core.status(job.job_id) == ("failed" if max_retries == 0 else "pending")
