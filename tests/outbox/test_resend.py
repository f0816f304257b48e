"""When an outcome counts as failing, and how it is sent again; the core called directly."""

import uuid

import pytest
from kombu.exceptions import OperationalError

from bridge.errors import Invalid, NotFound
from bridge.outbox import outcomes
from models.job_state import OutcomeState
from models.outbox import FAILING_TRIES
from tests.support.core import Core


class Pipeline:
    """Where outcomes are sent to; while `broken` it refuses them as a broker does."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.broken = False
        self.received = []

    def send(self, task_id, kwargs, tenant):
        if self.broken:
            raise OperationalError("redis://host:6379 is away") from ConnectionResetError("host")
        self.received.append((task_id, kwargs["status"], tenant))

    def deliver(self):
        broken = (OperationalError,)
        return outcomes.deliver(self.runtime, self.send, broken) + outcomes.repeat(self.runtime, self.send, broken, 0)


@pytest.fixture
def pipeline(runtime):
    return Pipeline(runtime)


def later(core):
    """Time passes until everything is due."""
    core.sql("UPDATE continuations SET next_at = now() WHERE next_at IS NOT NULL")


def page(core, state=None, limit=50, cursor=None):
    return outcomes.page(core.runtime, "default", state, limit, cursor)


def test_an_outcome_that_the_broker_refuses_long_enough_is_failing_and_says_why(core, pipeline):
    job_id = core.finished()
    pipeline.broken = True
    for tries in range(1, FAILING_TRIES + 1):
        later(core)
        assert pipeline.deliver() == 0
        (row,), _ = page(core)
        assert (str(row.job_id), row.n, row.status, row.tries) == (job_id, 1, "completed", tries)
        assert row.last_error == "ConnectionResetError"  # the kind of what was behind it; no host
        assert row.state == ("failing" if tries == FAILING_TRIES else "waiting")
        assert row.sent_at is None
    pipeline.broken = False
    later(core)
    assert pipeline.deliver() == 1
    assert page(core) == ([], None)
    (row,), _ = page(core, OutcomeState.SENT)
    assert (row.state, row.last_error, row.next_at) == ("sent", None, None)


def test_an_outcome_that_is_never_confirmed_is_failing_until_it_is(make_runtime):
    core = Core(make_runtime(continuation_confirm_seconds="60"))
    pipeline = Pipeline(core.runtime)
    job_id = core.finished()
    for _ in range(FAILING_TRIES):
        later(core)
        assert pipeline.deliver() == 1
    (row,), _ = page(core, OutcomeState.FAILING)
    assert row.sent_at is not None
    assert row.confirmed_at is None
    assert outcomes.confirm(core.runtime, job_id, 1)
    (row,), _ = page(core, OutcomeState.CONFIRMED)
    assert row.confirmed_at is not None
    assert page(core) == ([], None)
    assert {task_id for task_id, _, _ in pipeline.received} == {f"continue-{job_id}-1"}


def test_all_failing_outcomes_are_sent_again_under_their_old_names(core, pipeline):
    failing = sorted(core.finished() for _ in range(5))
    core.sql("UPDATE continuations SET tries = 9, next_at = now() + interval '5 minutes', last_error = 'X'")
    waiting = core.finished()
    core.sql("UPDATE continuations SET next_at = now() + interval '1 minute' WHERE job_id = :id", id=waiting)
    nudged = core.runtime.nudge
    nudged.clear()
    assert outcomes.resend_failing(core.runtime, "elsewhere") == 0
    assert outcomes.resend_failing(core.runtime, "default", batch=2) == 5
    assert sorted(nudged) == failing
    assert pipeline.deliver() == 5
    assert sorted(pipeline.received) == [(f"continue-{job_id}-1", "completed", "default") for job_id in failing]
    assert outcomes.resend_failing(core.runtime, "default") == 0
    assert [str(row.job_id) for row in page(core)[0]] == [waiting]


def test_a_job_by_name_is_sent_again_although_it_was_confirmed(core, pipeline):
    job_id = core.finished()
    pipeline.deliver()
    outcomes.confirm(core.runtime, job_id, 1)
    assert pipeline.deliver() == 0
    assert outcomes.resend(core.runtime, "default", uuid.UUID(job_id)) == 1
    assert pipeline.deliver() == 1
    assert [task_id for task_id, _, _ in pipeline.received] == [f"continue-{job_id}-1"] * 2
    (row,), _ = page(core, OutcomeState.SENT)
    assert (str(row.job_id), row.tries) == (job_id, 1)


def test_the_latest_outcome_of_a_job_is_meant_unless_another_is_named(core, pipeline):
    job_id = core.create()
    core.cancel(job_id)
    core.restart(job_id)
    core.result(core.claim(job_id))
    assert pipeline.deliver() == 2
    assert sorted(pipeline.received) == [
        (f"continue-{job_id}-1", "cancelled", "default"), (f"continue-{job_id}-2", "completed", "default")
    ]  # fmt: skip
    pipeline.received.clear()
    for n, sent in ((None, ("2", "completed")), (1, ("1", "cancelled"))):
        outcomes.resend(core.runtime, "default", uuid.UUID(job_id), n)
        assert pipeline.deliver() == 1
        assert pipeline.received.pop() == (f"continue-{job_id}-{sent[0]}", sent[1], "default")


def test_an_outcome_that_is_not_there_cannot_be_sent_again(core):
    job_id = core.finished()
    for tenant, one, n in (("other", job_id, None), ("default", job_id, 2), ("default", core.create(), None)):
        with pytest.raises(NotFound):
            outcomes.resend(core.runtime, tenant, uuid.UUID(one), n)


def test_what_is_not_failing_and_what_is_anothers_is_not_sent_again(core):
    job_id = core.create()
    core.cancel(job_id)
    core.restart(job_id)
    core.cancel(job_id)
    elsewhere = Core(core.runtime, "elsewhere")
    elsewhere.cancel(elsewhere.create())
    core.sql("UPDATE continuations SET tries = 9, next_at = now() + interval '5 minutes', last_error = 'X'")
    core.sql("UPDATE continuations SET tries = 1, next_at = NULL, last_error = NULL, sent_at = now() WHERE n = 2")
    assert outcomes.resend_failing(core.runtime, "default") == 1
    rows = core.sql("SELECT tenant, n, state FROM continuations ORDER BY tenant, n")
    assert [tuple(row) for row in rows] == [
        ("default", 1, OutcomeState.WAITING),
        ("default", 2, OutcomeState.SENT),
        ("elsewhere", 1, OutcomeState.FAILING),
    ]


def test_pages_of_outcomes_neither_repeat_nor_miss_one_in_ties_and_across_states(core):
    made = [core.finished() for _ in range(7)]
    core.sql("UPDATE continuations SET created_at = now()")
    core.sql("UPDATE continuations SET tries = 5 WHERE job_id = ANY(CAST(:ids AS uuid[]))", ids=made[::2])
    found, cursor = [], None
    while True:
        rows, cursor = page(core, limit=3, cursor=cursor)
        found.append([str(row.job_id) for row in rows])
        if cursor is None:
            break
    assert [len(one) for one in found] == [3, 3, 1]
    assert [job_id for one in found for job_id in one] == sorted(made, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "e30=", "WzFd", "WyJ4IiwgIngiLCAieCJd", "é"])
def test_a_foreign_cursor_is_refused(core, cursor):
    with pytest.raises(Invalid):
        page(core, cursor=cursor)
