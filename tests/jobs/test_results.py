"""Results: which are accepted, which are replays, which come late, and which are refused and remembered."""

import pytest

from bridge.errors import Conflict
from bridge.jobs.submit_result import fail_unstorable
from tests.support.core import KEY, OTHER_KEY, outcome_of


def test_the_same_result_again_is_accepted_again_and_changes_nothing(core):
    job = core.held()
    first = core.result(job, metadata={"a": 1})
    before = (core.row(job.job_id), core.attempts(job.job_id), core.outcomes(job.job_id))
    assert core.result(job, metadata={"a": 1}) == first == ("completed", True)
    assert (core.row(job.job_id), core.attempts(job.job_id), core.outcomes(job.job_id)) == before


def test_another_result_of_the_same_attempt_is_refused_and_remembered(core):
    job = core.held()
    core.result(job)
    with pytest.raises(Conflict) as refused:
        core.result(job, content="another")
    assert refused.value.code == "already_finished"
    kept = core.sql("SELECT attempt, code, reason FROM job_refusals WHERE job_id = :id", id=str(job.job_id))
    assert [(row.attempt, row.code) for row in kept] == [(1, "already_finished")]
    assert [row.content for row in core.sql("SELECT content FROM job_results")] == ["text"]


def test_a_failure_is_replayed_too_although_the_job_goes_on(core):
    job = core.held()
    core.result(job, success=False)
    assert core.result(job, success=False).status == "pending"
    assert core.row(job.job_id).retry_count == 1


@pytest.mark.parametrize("acknowledge", [True, False], ids=["lease_expired", "unacknowledged"])
def test_a_late_success_counts_while_nobody_else_has_begun(core, acknowledge):
    job = core.lost(acknowledge=acknowledge)
    assert core.result(job) == ("completed", True)
    assert core.hows(job.job_id) == ["completed"]
    assert core.result(job) == ("completed", True)
    assert len(core.outcomes(job.job_id)) == 1


def test_a_late_failure_spends_no_further_retry(core):
    job = core.lost()
    before = core.row(job.job_id)
    assert core.result(job, success=False, error_message="broke").status == "pending"
    row = core.row(job.job_id)
    assert (row.retry_count, row.available_at, row.error_message) == (1, before.available_at, "broke")
    assert core.hows(job.job_id) == ["failed"]
    assert outcome_of(lambda: core.result(job)) == "not_processing"


def test_a_late_failure_that_is_not_retryable_fails_the_job(core):
    job = core.lost()
    assert core.result(job, success=False, retryable=False).status == "failed"


@pytest.mark.parametrize("end", ["unacknowledged", "released"])
def test_a_result_is_refused_once_another_has_claimed(core, end):
    job = core.held() if end == "released" else core.lost(acknowledge=False)
    if end == "released":
        core.release(job)
    second = core.claim(str(job.job_id), "w2")
    assert outcome_of(lambda: core.result(job)) == "lease_lost"
    assert core.status(job.job_id) == "processing"
    assert core.result(second).status == "completed"
    assert core.hows(job.job_id) == [end, "completed"]


def test_a_late_result_is_refused_after_a_release(core):
    job = core.held()
    core.release(job)
    assert outcome_of(lambda: core.result(job)) == "not_processing"


def test_a_late_result_is_refused_after_an_operator_touched_the_job(core):
    job = core.lost()
    core.cancel(job.job_id)
    core.restart(job.job_id)
    assert outcome_of(lambda: core.result(job)) == "not_processing"
    assert core.status(job.job_id) == "pending"


def test_a_late_result_is_refused_after_a_failed_job_was_put_back(core):
    job = core.held(max_retries=0)
    core.expire_after(job.job_id)
    core.restart(job.job_id)
    assert outcome_of(lambda: core.result(job)) == "not_processing"


def test_a_late_result_of_a_job_that_timed_out_is_refused(core):
    job = core.lost()
    core.expire_after(job.job_id, 90000)
    assert outcome_of(lambda: core.result(job)) == "already_finished"


def test_a_result_acknowledges(core):
    job = core.held(acknowledge=False)
    core.result(job)
    assert core.attempts(job.job_id)[0].acknowledged_at is not None


def test_without_a_token_a_success_is_taken_from_the_key(core):
    job_id = core.create()
    core.release(core.claim(job_id, "w1", lease=None))
    second = core.claim(job_id, "w2", lease=None)
    assert core.result(second, token=None).status == "completed"


def test_without_a_token_a_failure_counts_only_while_one_worker_made_all_claims(core):
    job_id = core.create()
    core.release(core.claim(job_id, "w1", lease=None))
    second = core.claim(job_id, "w2", lease=None)
    assert outcome_of(lambda: core.result(second, token=None, success=False)) == "lease_lost"
    assert core.status(job_id) == "processing"
    alone = core.held(acknowledge=False)
    only = core.claim(core.create(), "w1", lease=None)
    assert core.result(only, token=None, success=False).status == "pending"
    assert core.status(alone.job_id) == "processing"


def test_claims_of_other_keys_do_not_make_a_failure_ambiguous(core):
    job_id = core.create()
    core.release(core.claim(job_id, "w1", key=OTHER_KEY, lease=None), key=OTHER_KEY)
    second = core.claim(job_id, "w2", lease=None)
    assert core.result(second, token=None, success=False).status == "pending"


def test_what_cannot_be_stored_fails_the_job_of_its_holder_only(core):
    job = core.held(max_retries=3)
    stale = "x" * 43
    assert outcome_of(lambda: fail_unstorable(core.runtime, KEY, str(job.job_id), "too large", stale)) == "lease_lost"
    assert core.status(job.job_id) == "processing"
    fail_unstorable(core.runtime, KEY, str(job.job_id), "too large", job.lease_token)
    row = core.row(job.job_id)
    assert (row.status, row.error_message, row.retry_count) == ("failed", "too large", 0)


def test_refusals_of_a_job_are_bounded(core):
    job = core.held()
    core.result(job)
    for n in range(25):
        outcome_of(lambda n=n: core.result(job, content=f"another {n}"))
    kept = core.sql("SELECT count(*) AS n FROM job_refusals WHERE job_id = :id", id=str(job.job_id))[0].n
    assert kept == 20


def kwargs_of(core, job_id, **said):
    """Return the kwargs of an outcome of this job in which there is no result, with what else is said."""
    return {
        "job_id": str(job_id), "ingestion_task_id": core.row(job_id).ingestion_task_id, "content_type": "audio",
        "success": False, "metadata": None, "processing_time": None, "error_message": None, "retry_count": 0,
        "task_options": {}, **said,
    }  # fmt: skip


def test_every_terminal_state_is_counted_and_recorded_with_its_kwargs(core):
    job = core.held(task_options={"x": [1.5, None]})
    core.result(job, success=False, retryable=False, error_message="no")
    core.restart(job.job_id)
    again = core.claim(str(job.job_id))
    core.result(again, content="done", metadata={"pages": 3}, processing_time=2.5)
    outcomes = core.outcomes(job.job_id)
    assert [row.n for row in outcomes] == [1, 2]
    failed = {"status": "failed", "error_message": "no", "task_options": {"x": [1.5, None]}, "n": 1}
    assert outcomes[0].kwargs == kwargs_of(core, job.job_id, **failed)
    assert (outcomes[1].kwargs["n"], outcomes[1].kwargs["metadata"]) == (2, {"pages": 3})
    assert (outcomes[1].kwargs["success"], outcomes[1].kwargs["processing_time"]) == (True, 2.5)


def test_without_a_continuation_task_nothing_is_recorded(make_runtime, core):
    core.runtime = make_runtime(continuation_task="")
    job = core.held()
    assert core.result(job) == ("completed", False)
    assert core.outcomes(job.job_id) == []
