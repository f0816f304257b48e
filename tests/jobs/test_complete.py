"""A success that is tried without a look: its guard is the rule of bridge.jobs.ownership, and many go at once."""

import itertools
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from bridge.caller import Caller
from bridge.jobs import complete
from bridge.jobs.complete import Success, result_data
from bridge.jobs.ownership import holds_latest
from bridge.jobs.read import find
from models.job_state import JobState
from tests.jobs.test_edges import identity, in_state
from tests.support.core import KEY, OTHER_KEY

LEASES = (None, 60)
KEYS = {"own": KEY, "other": OTHER_KEY, "of another tenant": Caller(KEY.key_id, "elsewhere")}
TOKENS = ("own", "wrong", "none")


def success(job_id, key=KEY, token=None, content="text"):
    return Success(UUID(str(job_id)), key.tenant, key.key_id, token, content, result_data(None, None), b"digest")


def tried(core, *successes):
    return complete.TOGETHER.run(core.runtime, successes)


def places(core, lease):
    """Yield a job in every state, and where they differ for a result in more than one way."""
    for state in JobState:
        held = state == JobState.PROCESSING
        yield core.claim(core.create(), lease=lease, acknowledge=True) if held else in_state(core, state)
    timed_out = core.held()  # its late result counts, and has to be judged
    core.expire_after(timed_out.job_id, 3601)
    yield timed_out
    released = core.held()
    core.release(released)
    yield released
    again = core.held(max_retries=3)
    core.result(again, success=False)
    yield again


@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.slow
def test_it_completes_exactly_what_the_rule_of_ownership_lets_complete(core, lease):
    seen: set[bool] = set()
    jobs: list[Any] = []
    for key, token in itertools.product(KEYS.values(), TOKENS):
        jobs = jobs or [*places(core, lease)]
        completed = False
        for job in jobs:
            job_id = identity(job)
            sent = {"own": getattr(job, "lease_token", "x"), "wrong": "y" * 43, "none": None}[token]
            row = find(core.runtime, "default", job_id)
            allowed = (
                key.tenant == "default" and row.status == JobState.PROCESSING and holds_latest(row, key, sent) is None
            )
            (done,) = tried(core, success(job_id, key, sent))
            assert (done is not None) == allowed, (row.status, key, token, lease)
            assert (core.status(job_id) == JobState.COMPLETED) == (allowed or row.status == JobState.COMPLETED)
            seen.add(allowed)
            completed |= allowed
        if completed:
            jobs = []  # the others were refused, which changes nothing of them
    assert seen == {True, False}


def test_many_are_completed_at_once_each_with_its_own_result(core):
    jobs = [core.held() for _ in range(3)]
    told = [success(job.job_id, token=job.lease_token, content=f"of {job.job_id}") for job in jobs]
    wrong, unnamed, *foreign = (core.held() for _ in range(4))
    others = [success(job.job_id, KEYS[key], job.lease_token) for job, key in zip(foreign, [*KEYS][1:], strict=True)]
    rows = tried(core, *told, success(wrong.job_id, token="wrong"), success(unnamed.job_id), *others)
    assert [row and row.status for row in rows] == ["completed"] * 3 + [None] * 4
    for job in jobs:
        stored = core.sql("SELECT content FROM job_results WHERE job_id = :id", id=str(job.job_id))
        assert [row.content for row in stored] == [f"of {job.job_id}"]
        assert core.hows(job.job_id) == ["completed"]
        assert bytes(core.attempts(job.job_id)[0].result_digest) == b"digest"
        assert [row.n for row in core.outcomes(job.job_id)] == [1]
    assert {core.status(job.job_id) for job in (wrong, unnamed, *foreign)} == {JobState.PROCESSING}


def test_of_two_results_for_one_job_in_a_batch_the_first_counts(core):
    job = core.held()
    first, second = (success(job.job_id, token=job.lease_token, content=one) for one in ("first", "second"))
    rows = tried(core, first, second)
    assert [row is not None for row in rows] == [True, False]
    assert [row.content for row in core.sql("SELECT content FROM job_results")] == ["first"]


def test_a_job_that_is_being_changed_holds_up_no_other(core):
    busy, free = core.held(), core.held()
    with core.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM remote_jobs WHERE id = '{busy.job_id}' FOR UPDATE")
        rows = tried(core, *(success(job.job_id, token=job.lease_token) for job in (busy, free)))
    assert [row is not None for row in rows] == [False, True]


def test_a_result_goes_with_others_of_its_moment_unless_it_is_large(core):
    together = []

    def batches(write, runtime, one):
        together.append(one.job_id)
        return write.run(runtime, [one])[0]

    small, large = core.held(), core.held()
    core.runtime = replace(core.runtime, batches=batches)
    core.result(small, content="x" * 1000)
    core.result(large, content="x" * complete.MOST_TOGETHER_BYTES)
    assert together == [small.job_id]
    assert {core.status(job.job_id) for job in (small, large)} == {"completed"}
