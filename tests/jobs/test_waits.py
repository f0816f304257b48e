"""Interleavings that a lock decides: a verb that had to wait for its row judges it anew, clause by clause."""

from typing import Any

import pytest
from sqlalchemy import text

from bridge.jobs import cancel, release, submit_result
from bridge.jobs.claim import Claimant, claim
from bridge.jobs.transition import parameters
from models.job_state import Change
from tests.support.core import KEY, Core


def meanwhile(core: Core, connection, statement, job, **params) -> None:
    """Another process' change, on the connection that holds the row."""
    this = {"job_id": str(job.job_id), "attempt": job.attempt, "asked_by": KEY.key_id}
    given = {**parameters(core.runtime), **this, **params}
    assert connection.execute(statement, given).first() is not None


def given_to_another(core: Core, connection, job) -> None:
    """Its worker has given the job back, and another has claimed it."""
    meanwhile(core, connection, release.RETURN, job)
    other = Claimant(KEY.key_id, "w2", None, None)
    assert claim(connection, [(str(job.job_id), other)], 60).claimed


def lapsed(connection, job) -> None:
    """End the attempt without a result; the job is pending again."""
    connection.exec_driver_sql(
        "UPDATE remote_jobs SET status = 'pending', lease_expires_at = NULL, ack_by = NULL,"
        f" attempt_end = 'released', attempt_ended_at = now() WHERE id = '{job.job_id}'"
    )


RESULTS = {"success": {}, "failure": {"success": False}, "fatal": {"success": False, "retryable": False}}


@pytest.mark.parametrize("said", RESULTS.values(), ids=RESULTS.keys())
def test_a_result_that_waited_while_the_job_went_to_another(core, said):
    job = core.held()
    with core.locked(job.job_id, lambda: core.result(job, **said)) as (connection, done):
        given_to_another(core, connection, job)
    assert done.result(60) == "lease_lost"
    row = core.row(job.job_id)
    assert (row.status, row.attempt, row.worker_id) == ("processing", 2, "w2")


@pytest.mark.parametrize("said", RESULTS.values(), ids=RESULTS.keys())
@pytest.mark.parametrize(("holds", "end"), [(Core.held, "cancelled"), (Core.lost, "lease_expired")], ids=["", "late"])
def test_a_result_that_waited_while_the_job_was_cancelled(core, holds, end, said):
    job = holds(core)
    with core.locked(job.job_id, lambda: core.result(job, **said)) as (connection, done):
        meanwhile(core, connection, cancel.CANCEL, job)
    assert done.result(60) == "already_finished"
    assert core.status(job.job_id) == "cancelled"
    assert core.hows(job.job_id) == [end]


@pytest.mark.parametrize("said", RESULTS.values(), ids=RESULTS.keys())
def test_a_result_that_waited_while_its_attempt_was_given_back(core, said):
    job = core.held()
    with core.locked(job.job_id, lambda: core.result(job, **said)) as (connection, done):
        meanwhile(core, connection, release.RETURN, job)
    assert done.result(60) == "not_processing"
    row = core.row(job.job_id)
    assert (row.status, row.retry_count, row.attempt_end) == ("pending", 0, "released")


@pytest.mark.parametrize("said", RESULTS.values(), ids=RESULTS.keys())
def test_a_late_result_that_waited_while_the_job_was_claimed_and_lost_again(core, said):
    job = core.lost()
    core.age(job.job_id, 60)
    with core.locked(job.job_id, lambda: core.result(job, **said)) as (connection, done):
        assert claim(connection, [(str(job.job_id), Claimant(KEY.key_id, "w2", 60))], 60).claimed
        lapsed(connection, job)
        connection.execute(text("UPDATE remote_jobs SET attempt_end = 'lease_expired'"))
    assert done.result(60) == "lease_lost"
    assert (core.status(job.job_id), core.row(job.job_id).attempt_end) == ("pending", "lease_expired")


@pytest.mark.parametrize("said", RESULTS.values(), ids=RESULTS.keys())
def test_a_late_result_that_waited_while_another_late_result_came(core, said):
    job = core.lost()
    other = {"result_digest": b"another", "error_message": "no"}
    with core.locked(job.job_id, lambda: core.result(job, **said)) as (connection, done):
        meanwhile(core, connection, submit_result.STATEMENTS[Change.LATE_RETRY], job, **other)
    assert done.result(60) == "not_processing"
    row = core.row(job.job_id)
    assert (row.status, row.attempt_end, row.error_message) == ("pending", "failed", "no")


@pytest.mark.parametrize(("progress", "attempt"), [(None, 2), (0.5, 2), (0.5, 1)])
def test_a_heartbeat_that_waited_while_its_attempt_was_given_back_acknowledges_nothing(core, progress, attempt):
    job = core.held(acknowledge=False)
    with core.locked(job.job_id, lambda: core.heartbeat(job, progress=progress)) as (connection, done):
        if attempt == 2:
            given_to_another(core, connection, job)
        else:
            meanwhile(core, connection, release.RETURN, job)
    assert done.result(60) == "lease_lost"
    row = core.row(job.job_id)
    assert (row.attempt, row.acknowledged_at, row.progress) == (attempt, None, None)


@pytest.mark.parametrize(
    ("returns", "max_retries"), [(0, 3), (4, 3), (4, 0)], ids=["returned", "retry spent", "none left"]
)
def test_a_release_that_waited(core, returns, max_retries):
    for another in (True, False):
        job = core.held(max_retries=max_retries, returns=returns)
        with core.locked(job.job_id, lambda job=job: core.release(job)) as (connection, done):
            if another:
                given_to_another(core, connection, job)
            else:
                meanwhile(core, connection, cancel.CANCEL, job)
        assert done.result(60) == "lease_lost"
        assert core.status(job.job_id) == ("processing" if another else "cancelled")


@pytest.mark.parametrize(("returns", "max_retries"), [(0, 3), (4, 3), (4, 0)])
def test_a_release_that_waited_while_the_claim_ran_out(core, returns, max_retries):
    job = core.held(max_retries=max_retries, returns=returns)
    with core.locked(job.job_id, lambda: core.release(job)) as (connection, done):
        lapsed(connection, job)
        connection.execute(text("UPDATE remote_jobs SET attempt_end = 'unacknowledged'"))
    assert done.result(60) == "lease_lost"
    row = core.row(job.job_id)
    assert (row.status, row.attempt_end, row.return_count) == ("pending", "unacknowledged", returns)


def test_a_cancel_that_waited_while_the_result_came(core):
    job = core.held()
    done_with: dict[str, Any] = {"content": "text", "result_data": {}, "error_message": None, "result_digest": b"x"}
    with core.locked(job.job_id, lambda: core.cancel(job.job_id)) as (connection, done):
        meanwhile(core, connection, submit_result.STATEMENTS[Change.COMPLETE], job, **done_with)
    assert done.result(60) == "already_finished"
    assert core.status(job.job_id) == "completed"


def test_an_operators_retry_that_waited_for_another_changes_nothing_more(core):
    job = core.held()
    core.cancel(job.job_id)
    with core.locked(job.job_id, lambda: core.restart(job.job_id)) as (connection, done):
        meanwhile(core, connection, cancel.RESTART, job)
        connection.execute(text("UPDATE remote_jobs SET queued_at = queued_at - interval '1 hour'"))
        first = connection.execute(text("SELECT queued_at FROM remote_jobs")).scalar_one()
    assert done.result(60) == "pending"
    assert core.row(job.job_id).queued_at == first


def bystanders(core: Core) -> list[str]:
    """Return a job in every place that a verb might touch by mistake."""
    waiting = [core.create(), core.create("video")]
    lost, returned = core.lost(), core.held("b3")
    core.release(returned)
    ended = [core.held(f"e{n}") for n in range(3)]
    core.result(ended[0], success=False, retryable=False)
    core.cancel(ended[1].job_id)
    core.result(ended[2])
    # Made last, or what is wrong with a verb that is used above happens to them before anybody looks.
    held, unseen = core.held("b1"), core.held("b2", acknowledge=False)
    return [*waiting, *(str(job.job_id) for job in (held, unseen, lost, returned, *ended))]


VERBS = {
    "success": lambda core: core.result(core.held()),
    "failure": lambda core: core.result(core.held(), success=False),
    "fatal failure": lambda core: core.result(core.held(), success=False, retryable=False),
    "late success": lambda core: core.result(core.lost()),
    "late failure": lambda core: core.result(core.lost(), success=False),
    "late fatal failure": lambda core: core.result(core.lost(), success=False, retryable=False),
    "heartbeat": lambda core: core.heartbeat(core.held(), progress=0.1),
    "release": lambda core: core.release(core.held()),
    "cancel": lambda core: core.cancel(core.create()),
    "retry": lambda core: core.restart(ended(core)),
    "release that spends a retry": lambda core: core.release(core.held(max_retries=1, returns=4)),
    "release that fails": lambda core: core.release(core.held(max_retries=0, returns=4)),
}


def ended(core: Core) -> str:
    job_id = core.create()
    core.cancel(job_id)
    return job_id


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_a_verb_touches_no_other_job(core, verb):
    others = bystanders(core)
    seen = lambda: [(core.row(job), core.attempts(job), core.outcomes(job)) for job in others]  # noqa: E731
    before = seen()
    verb(core)
    assert seen() == before


ENDS = {
    "cancelled while it waits": lambda core: core.cancel(core.create()),
    "cancelled while it runs": lambda core: core.cancel(core.held().job_id),
    "completed": lambda core: core.result(core.held()),
    "completed late": lambda core: core.result(core.lost()),
    "failed": lambda core: core.result(core.held(), success=False, retryable=False),
    "failed late": lambda core: core.result(core.lost(), success=False, retryable=False),
    "released too often": lambda core: core.release(core.held(max_retries=0, returns=4)),
    "never acknowledged": lambda core: core.expire_after(core.held(max_retries=0, returns=4, acknowledge=False).job_id),
    "lost": lambda core: core.expire_after(core.held(max_retries=0).job_id),
    "past its deadline": lambda core: core.expire_after(core.held().job_id, 3601),
    "never claimed": lambda core: core.expire_after(core.create(), 86401),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("told", [True, False])
def test_an_end_is_recorded_for_the_pipeline_if_there_is_one(make_runtime, end, told):
    core = Core(make_runtime(**({} if told else {"continuation_task": ""})))
    end(core)
    [job] = core.sql("SELECT * FROM remote_jobs WHERE completed_at IS NOT NULL")
    recorded = [(outcome.n, *map(outcome.kwargs.get, ("n", "status", "success", "error_message")))
                for outcome in core.outcomes(job.id)]  # fmt: skip
    assert recorded == [(1, 1, job.status, job.status == "completed", job.error_message)] * told


@pytest.mark.parametrize("said", RESULTS.values(), ids=RESULTS.keys())
def test_a_late_result_changes_how_its_own_attempt_ended_and_no_earlier_one(core, said):
    job_id = core.create()
    core.release(core.claim(job_id, "w0"))
    job = core.claim(job_id, acknowledge=True)
    core.expire_after(job_id)
    core.result(job, **said)
    assert core.hows(job_id) == ["released", "completed" if said == {} else "failed"]
