"""The table of the contract, §2: every edge is walked, every other one is refused, by the service and by PostgreSQL."""

import itertools

import pytest
from sqlalchemy.exc import IntegrityError

from models.job_state import FINAL, JobState, legal_moves
from tests.support.core import Core, outcome_of

STATES = list(JobState)


def in_state(core: Core, state: JobState, **fields):
    """Return a job in this state, by the service's own verbs; its last claim, or its ID while it has none."""
    if state == JobState.PENDING:
        return core.create(**fields)
    job = core.held(**fields)
    if state == JobState.COMPLETED:
        core.result(job)
    elif state == JobState.FAILED:
        core.result(job, success=False, retryable=False)
    elif state == JobState.TIMEOUT:
        core.expire_after(job.job_id, 3601)
    elif state == JobState.CANCELLED:
        core.cancel(job.job_id)
    assert core.status(job.job_id) == state
    return job


def identity(job) -> str:
    return str(getattr(job, "job_id", job))


def test_created_is_pending(core):
    row = core.row(core.create())
    assert (row.status, row.attempt, row.retry_count, row.completed_at) == ("pending", 0, 0, None)


def test_claim_makes_pending_processing_with_a_new_attempt_and_token(core):
    job_id = core.create()
    first = core.claim(job_id)
    assert (core.status(job_id), first.attempt) == ("processing", 1)
    core.release(first)
    second = core.claim(job_id, "w2")
    assert second.attempt == 2
    assert second.lease_token != first.lease_token


@pytest.mark.parametrize("state", [state for state in STATES if state != JobState.PENDING])
def test_only_a_pending_job_is_claimed(core, state):
    assert core.claim(identity(in_state(core, state)), "w2") is None


def test_a_job_is_not_claimed_before_it_is_available_or_after_its_queue_clock(core):
    job_id = core.create(queue_timeout_seconds=100)
    core.sql("UPDATE remote_jobs SET available_at = now() + interval '5 s' WHERE id = :id", id=job_id)
    assert core.claim(job_id) is None
    assert core.next() == []
    core.age(job_id, 5)
    core.age(job_id, 96)
    assert core.claim(job_id) is None
    assert core.next() == []


def test_a_failure_with_retries_left_waits_for_its_backoff(core):
    job = core.held(max_retries=1)
    assert core.result(job, success=False, error_message="no") == ("pending", False)
    row = core.row(job.job_id)
    assert (row.retry_count, row.error_message, row.mirrored) == (1, "no", False)
    assert 8 < (row.available_at - row.attempt_ended_at).total_seconds() < 12  # base 10 s, jitter 10 %
    assert row.queued_at == row.available_at
    assert core.hows(job.job_id) == ["failed"]


@pytest.mark.parametrize(("max_retries", "retryable"), [(0, True), (3, False)])
def test_a_failure_without_retries_left_or_wanted_fails(core, max_retries, retryable):
    job = core.held(max_retries=max_retries)
    assert core.result(job, success=False, retryable=retryable, error_message="no") == ("failed", True)
    assert core.hows(job.job_id) == ["failed"]
    assert core.row(job.job_id).retry_count == 0


@pytest.mark.parametrize(("retries", "end"), [(1, "pending"), (0, "failed")])
def test_a_lease_that_ran_out_spends_a_retry_or_fails(core, retries, end):
    job = core.held(max_retries=retries)
    assert core.expire_after(job.job_id) == 1
    row = core.row(job.job_id)
    assert (row.status, row.retry_count, row.return_count) == (end, retries, 0)
    assert "lease" in row.error_message
    assert core.hows(job.job_id) == ["lease_expired"]


def test_a_claim_that_was_never_acknowledged_goes_back_to_the_head(core):
    job = core.held(acknowledge=False)
    younger = core.create()
    core.expire_after(job.job_id)
    row = core.row(job.job_id)
    assert (row.status, row.retry_count, row.return_count) == ("pending", 0, 1)
    assert core.next() == [str(job.job_id), younger]
    assert core.hows(job.job_id) == ["unacknowledged"]
    assert "acknowledgement" in core.attempts(job.job_id)[0].why


def test_a_released_job_goes_back_to_the_head(core):
    job = core.held()
    younger = core.create()
    assert core.release(job) == "pending"
    assert core.row(job.job_id).retry_count == 0
    assert core.next() == [str(job.job_id), younger]
    assert core.hows(job.job_id) == ["released"]


@pytest.mark.parametrize("how", ["released", "unacknowledged"])
@pytest.mark.parametrize(("max_retries", "end"), [(1, "pending"), (0, "failed")])
def test_the_fifth_return_in_a_row_spends_a_retry(core, how, max_retries, end):
    job_id = core.create(max_retries=max_retries)
    for n in range(5):
        assert core.status(job_id) == "pending"
        job = core.claim(job_id, f"w{n}")
        if how == "released":
            core.release(job)
        else:
            core.expire_after(job_id)
    row = core.row(job_id)
    assert (row.status, row.retry_count, row.return_count) == (end, max_retries, 0 if end == "pending" else 4)
    assert core.hows(job_id) == [how] * 5


def test_returns_are_counted_anew_after_a_retry(core):
    job_id = core.create()
    for n in range(4):
        core.release(core.claim(job_id, f"w{n}"))
    core.result(core.claim(job_id, "w5"), success=False)
    assert core.row(job_id).return_count == 0


@pytest.mark.parametrize(("state", "age", "clock"), [("pending", 86401, "queue"), ("processing", 3601, "deadline")])
def test_a_clock_ends_the_job_and_is_named(core, state, age, clock):
    job_id = identity(in_state(core, JobState(state)))
    core.expire_after(job_id, age)
    row = core.row(job_id)
    assert row.status == "timeout"
    assert clock in row.error_message
    assert core.hows(job_id) == (["timeout"] if state == "processing" else [])
    assert len(core.outcomes(job_id)) == 1


@pytest.mark.parametrize("state", ["pending", "processing"])
def test_cancel_ends_an_unfinished_job_and_again_is_well(core, state):
    job_id = identity(in_state(core, JobState(state)))
    assert core.cancel(job_id) == core.cancel(job_id) == "cancelled"
    assert "Cancelled" in core.row(job_id).error_message
    assert core.hows(job_id) == (["cancelled"] if state == "processing" else [])
    assert len(core.outcomes(job_id)) == 1


@pytest.mark.parametrize("state", ["completed", "failed", "timeout"])
def test_a_finished_job_is_not_cancelled(core, state):
    job = in_state(core, JobState(state))
    assert outcome_of(lambda: core.cancel(job.job_id)) == "already_finished"


@pytest.mark.parametrize("state", ["failed", "timeout", "cancelled"])
def test_an_operators_retry_starts_anew(core, state):
    job = in_state(core, JobState(state))
    assert core.restart(job.job_id) == core.restart(job.job_id) == "pending"
    row = core.row(job.job_id)
    assert (row.retry_count, row.return_count, row.error_message, row.completed_at) == (0, 0, None, None)
    assert core.next() == [str(job.job_id)]
    assert core.claim(str(job.job_id)).attempt == 2


@pytest.mark.parametrize(("state", "code"), [("completed", "already_finished"), ("processing", "not_ready")])
def test_only_what_ended_without_a_result_is_retried(core, state, code):
    job = in_state(core, JobState(state))
    assert outcome_of(lambda: core.restart(job.job_id)) == code


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_finished_job_takes_nothing_more_from_its_worker(core, state):
    job = in_state(core, JobState(state))
    before = core.row(job.job_id)
    assert outcome_of(lambda: core.result(job, content="another")) == "already_finished"
    assert outcome_of(lambda: core.result(job, success=False)) == "already_finished"
    assert outcome_of(lambda: core.release(job)) == "lease_lost"
    if state == JobState.CANCELLED:
        assert core.heartbeat(job).cancel_requested
    else:
        assert outcome_of(lambda: core.heartbeat(job)) == "lease_lost"
    assert core.row(job.job_id) == before


@pytest.mark.parametrize(
    ("source", "target"), sorted(set(itertools.permutations(STATES, 2)) - legal_moves()), ids=lambda state: str(state)
)
def test_postgresql_refuses_any_other_edge(core, source, target):
    job_id = identity(in_state(core, source))
    fitting = {
        "status": target,
        "completed_at": "now()" if target in FINAL else "NULL",
        "lease_expires_at": "now()" if target == JobState.PROCESSING else "NULL",
        "ack_by": "now()" if target == JobState.PROCESSING else "NULL",
        "attempt_end": "NULL",
        "attempt_ended_at": "NULL",
    }
    values = ", ".join(f"{name} = {value if name != 'status' else repr(str(value))}" for name, value in fitting.items())
    with pytest.raises(IntegrityError, match=f"cannot go from {source} to {target}"):
        core.sql(f"UPDATE remote_jobs SET {values} WHERE id = :id", id=job_id)


@pytest.mark.parametrize(
    ("state", "lie"),
    [
        ("pending", "completed_at = now()"),
        ("pending", "lease_expires_at = now()"),
        ("pending", "retry_count = max_retries + 1"),
        ("pending", "priority = 3"),
        ("pending", "status = 'sleeping'"),
        ("pending", "idempotency_key = 'x'"),
        ("pending", "attempt_end = 'released'"),
        ("processing", "lease_expires_at = NULL"),
        ("processing", "ack_by = NULL"),
        ("processing", "lease_token = NULL"),
        ("processing", "worker_id = NULL"),
        ("processing", "key_id = NULL"),
        ("processing", "started_at = NULL"),
        ("processing", "attempt = 0"),
        ("processing", "attempt_end = 'released', attempt_ended_at = now()"),
        ("completed", "completed_at = NULL"),
        ("completed", "result_data = NULL"),
        ("failed", "outcome_count = 0"),
    ],
)
def test_postgresql_refuses_a_row_that_contradicts_its_state(core, state, lie):
    job_id = identity(in_state(core, JobState(state)))
    with pytest.raises(IntegrityError):
        core.sql(f"UPDATE remote_jobs SET {lie} WHERE id = :id", id=job_id)
