"""The sweeps of the clocks when there is more than a batch: each takes only what is its own."""

import pytest

from bridge.jobs.expire import expire
from tests.support.core import Core


def one_batch_of_one(core: Core) -> int:
    return expire(core.runtime, batch=1, rounds=1)


def two_overdue(core: Core, *, acknowledge: bool, seconds: float = 61, **fields):
    jobs = [core.held(f"w{n}", acknowledge=acknowledge, **fields) for n in range(2)]
    for n, job in enumerate(jobs):
        core.age(job.job_id, seconds + n)
    return jobs


def states(core: Core, jobs) -> list[str]:
    return sorted(core.status(job.job_id) for job in jobs)


def test_a_return_that_waits_for_the_next_batch_spends_no_retry_meanwhile(core):
    jobs = two_overdue(core, acknowledge=False)
    assert one_batch_of_one(core) == 1
    assert states(core, jobs) == ["pending", "processing"]
    assert one_batch_of_one(core) == 1
    assert [core.row(job.job_id).retry_count for job in jobs] == [0, 0]


def test_a_return_without_retries_that_waits_for_the_next_batch_does_not_fail_meanwhile(core):
    jobs = two_overdue(core, acknowledge=False, max_retries=0)
    assert one_batch_of_one(core) == 1
    assert states(core, jobs) == ["pending", "processing"]


def test_a_fifth_return_that_waits_for_the_next_batch_does_not_fail_meanwhile(core):
    jobs = two_overdue(core, acknowledge=False, max_retries=1)
    core.sql("UPDATE remote_jobs SET return_count = 4")
    assert one_batch_of_one(core) == 1
    assert states(core, jobs) == ["pending", "processing"]


def test_a_deadline_that_waits_for_the_next_batch_is_no_lost_lease_meanwhile(core):
    for retries in (0, 3):
        jobs = two_overdue(core, acknowledge=True, seconds=4000, max_retries=retries)
        assert one_batch_of_one(core) == 1
        assert states(core, jobs) == ["processing", "timeout"]
        assert one_batch_of_one(core) == 1
        assert states(core, jobs) == ["timeout", "timeout"]


def test_a_lost_lease_with_retries_that_waits_for_the_next_batch_does_not_fail_meanwhile(core):
    jobs = two_overdue(core, acknowledge=True, max_retries=2)
    assert one_batch_of_one(core) == 1
    assert states(core, jobs) == ["pending", "processing"]


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
    core.age(old, 86401)
    assert core.expire() == 1
    assert (core.status(fresh), core.status(old)) == ("pending", "timeout")


def test_a_row_that_somebody_is_changing_waits_for_the_next_run(core):
    job = core.held()
    core.age(job.job_id, 61)
    with core.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM remote_jobs WHERE id = '{job.job_id}' FOR UPDATE")
        assert core.expire() == 0
    assert core.expire() == 1


def came_back(core: Core, returns: int, **fields):
    job = core.held(**fields)
    core.sql("UPDATE remote_jobs SET return_count = :n WHERE id = :id", n=returns, id=str(job.job_id))
    return job


@pytest.mark.parametrize("max_retries", [0, 3])
@pytest.mark.parametrize("returns", [0, 4])
@pytest.mark.parametrize("acknowledge", [True, False])
def test_a_claim_whose_clocks_run_is_left_alone(core, max_retries, returns, acknowledge):
    job = came_back(core, returns, max_retries=max_retries, acknowledge=acknowledge)
    core.age(job.job_id, 50)
    assert core.expire() == 0
    assert core.status(job.job_id) == "processing"


@pytest.mark.parametrize("max_retries", [0, 3])
def test_a_lost_lease_is_no_missed_acknowledgement_however_often_the_job_came_back(core, max_retries):
    job = came_back(core, 4, max_retries=max_retries)
    core.age(job.job_id, 61)
    assert core.expire() == 1
    assert core.hows(job.job_id) == ["lease_expired"]
    assert core.status(job.job_id) == ("failed" if max_retries == 0 else "pending")
