"""The outbox: what is due is taken once, sent, put off when the broker refuses, and sent again until confirmed."""

from typing import Any
from uuid import UUID

import pytest

from bridge.jobs.purge import purge
from bridge.outbox import outcomes
from tests.support.core import Core


class Broker:
    """Takes what is handed to it, or refuses."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        self.refuses = False

    def __call__(self, task_id: str, kwargs: dict[str, Any], tenant: str) -> None:
        if self.refuses:
            raise ConnectionError("away")
        self.sent.append((task_id, kwargs, tenant))


@pytest.fixture
def broker() -> Broker:
    return Broker()


def deliver(core: Core, broker: Broker, job_id=None) -> int:
    return outcomes.deliver(core.runtime, broker, (ConnectionError,), None if job_id is None else [job_id])


def repeat(core: Core, broker: Broker, lying: int = 0, **options) -> int:
    return outcomes.repeat(core.runtime, broker, (ConnectionError,), lying, **options)


def finished_twice(core):
    """Return a job that has failed, was put back and is completed."""
    job_id = core.finished(success=False, retryable=False)
    core.restart(job_id)
    core.result(core.claim(job_id))
    return job_id


def due(core: Core, job_id: str) -> bool:
    """Whether an outcome is to be sent (again)."""
    return core.outcomes(job_id)[0].next_at is not None


def due_in(core: Core, job_id: str) -> float:
    """Return the seconds until it is due."""
    seconds = "SELECT extract(epoch FROM next_at - now()) AS s FROM continuations WHERE job_id = :id"
    return float(core.sql(seconds, id=job_id)[0].s)


def pass_time(core: Core, seconds: float) -> None:
    core.sql("UPDATE continuations SET next_at = next_at - make_interval(secs => :s)", s=seconds)


def test_an_outcome_is_sent_once_with_its_content(core, broker):
    job_id = core.finished(content="the text")
    assert deliver(core, broker) == 1
    [(task_id, kwargs, tenant)] = broker.sent
    assert (task_id, tenant) == (f"continue-{job_id}-1", "default")
    assert (kwargs["content"], kwargs["status"]) == ("the text", "completed")
    assert not due(core, job_id)
    assert deliver(core, broker) == 0


def test_an_outcome_is_read_when_its_turn_to_be_sent_has_come(core):
    """A batch that was read as a whole would hold fifty of the largest documents at once."""
    for _ in range(2):
        core.finished(content="as it was taken")
    sent = []

    def changes_what_is_left(_: str, kwargs: dict[str, Any], __: str) -> None:
        sent.append((kwargs["content"], kwargs["retry_count"]))
        core.sql("UPDATE job_results SET content = 'as it is'")
        core.sql("UPDATE continuations SET kwargs = replace(kwargs::text, '\"retry_count\" : 0', '\"retry_count\" : 7')"
                 "::json")  # fmt: skip

    assert outcomes.deliver(core.runtime, changes_what_is_left, (ConnectionError,)) == 2
    assert sent == [("as it was taken", 0), ("as it is", 7)]


def test_a_run_sends_all_that_is_due_up_to_its_bound_and_the_next_one_the_rest(core, broker):
    for _ in range(5):
        core.finished()
    runs = [outcomes.deliver_due(core.runtime, broker, (ConnectionError,), batch=1, rounds=3) for _ in range(3)]
    assert runs == [3, 2, 0]
    assert len({task_id for task_id, *_ in broker.sent}) == 5


def test_only_the_job_that_was_asked_for_is_sent(core, broker):
    first, second = core.finished(), core.finished()
    assert deliver(core, broker, second) == 1
    assert broker.sent[0][1]["job_id"] == second
    assert not due(core, second)
    assert due(core, first)


def test_a_refusal_is_put_off_longer_each_time_and_remembered(core, broker):
    job_id, other = core.finished(), core.finished()
    core.sql("UPDATE continuations SET next_at = now() + interval '1 h' WHERE job_id = :id", id=other)
    broker.refuses = True
    delays = []
    for tries in (1, 2, 3, 7, 40):
        core.sql("UPDATE continuations SET tries = :n, next_at = now() WHERE job_id = :id", n=tries - 1, id=job_id)
        assert deliver(core, broker) == 0
        delays.append(due_in(core, job_id))
        [row] = core.outcomes(job_id)
        assert (row.tries, row.last_error) == (tries, "ConnectionError")
    assert delays == sorted(delays)
    assert delays[0] < 3 < delays[2] < 9
    assert delays[3] > 60
    assert delays[4] <= outcomes.LONGEST_DELAY_SECONDS
    assert core.outcomes(other)[0].last_error is None


def test_what_was_taken_by_a_process_that_died_is_sent_after_its_visibility(core, broker):
    job_id = core.finished()
    with pytest.raises(RuntimeError):
        outcomes.deliver(core.runtime, _dies, (ConnectionError,))
    assert deliver(core, broker) == 0
    pass_time(core, outcomes.VISIBILITY_SECONDS)
    assert deliver(core, broker) == 1
    assert broker.sent[0][0] == f"continue-{job_id}-1"


def _dies(*_: object) -> None:
    raise RuntimeError("killed")


def test_until_it_is_confirmed_it_is_sent_again(make_runtime, core, broker):
    core.runtime = make_runtime(continuation_confirm_seconds="30")
    job_id, other = core.finished(), core.finished()
    assert deliver(core, broker) == 2
    assert 29 < due_in(core, job_id) <= 30
    assert repeat(core, broker) == 0
    pass_time(core, 31)
    assert deliver(core, broker) == deliver(core, broker, job_id) == 0
    assert repeat(core, broker) == 2
    assert [task for task, _, _ in broker.sent].count(f"continue-{job_id}-1") == 2
    assert outcomes.confirm(core.runtime, job_id, 1)
    assert outcomes.confirm(core.runtime, job_id, 1)
    pass_time(core, 75)
    assert repeat(core, broker) == 1
    assert due(core, other)


def test_the_waits_for_a_confirmation_double_up_to_an_hour_and_none_is_like_the_next(make_runtime, core, broker):
    core.runtime = make_runtime(continuation_confirm_seconds="30")
    jobs = [core.finished() for _ in range(3)]
    assert deliver(core, broker) == 3
    ratios = []
    for tries in range(2, 12):
        pass_time(core, 5000)
        assert repeat(core, broker) == 3
        expected = min(30 * 2 ** (tries - 1), outcomes.LONGEST_WAIT_SECONDS)
        ratios += [due_in(core, job_id) / expected for job_id in jobs]
    assert 0.79 < min(ratios) < 0.95, "more or less by a fifth"
    assert 1.05 < max(ratios) <= 1.2
    core.runtime = make_runtime(continuation_confirm_seconds="100000")
    late = core.finished()
    deliver(core, broker)
    for _ in range(3):
        pass_time(core, 200_000)
        assert repeat(core, broker)
    assert due_in(core, late) > 79_000, "the wait that was set is the shortest"


def test_what_may_lie_in_the_pipelines_queue_is_not_sent_again(make_runtime, core, broker):
    core.runtime = make_runtime(continuation_confirm_seconds="30")
    for _ in range(5):
        core.finished()
    assert deliver(core, broker) == 5
    pass_time(core, 31)
    assert repeat(core, broker, lying=5) == 0
    assert repeat(core, broker, lying=3) == 2
    assert repeat(core, broker, lying=3, most=1) == 1
    assert repeat(core, broker, lying=5) == 0
    late = core.finished()
    assert deliver(core, broker) == 1, "a first sending waits for nobody"
    assert due_in(core, late) > 29


def test_behind_a_queue_that_others_keep_long_what_was_silent_for_an_hour_goes_one_by_one(make_runtime, core, broker):
    core.runtime = make_runtime(continuation_confirm_seconds="30")
    for _ in range(3):
        core.finished()
    assert deliver(core, broker) == 3
    pass_time(core, 3601)
    assert repeat(core, broker, lying=1000) == 0, "not silent for an hour yet"
    core.sql("UPDATE continuations SET sent_at = sent_at - interval '1 hour'")
    assert [repeat(core, broker, lying=1000) for _ in range(4)] == [1, 1, 1, 0]


def test_a_confirmation_names_an_outcome(core, broker):
    job_id = finished_twice(core)
    assert not outcomes.confirm(core.runtime, job_id, 3)
    assert not outcomes.confirm(core.runtime, str(UUID(int=1)), 1)
    assert outcomes.confirm(core.runtime, job_id, 2)
    assert [row.confirmed_at is not None for row in core.outcomes(job_id)] == [False, True]
    assert deliver(core, broker) == 1
    assert broker.sent[0][0] == f"continue-{job_id}-1"
    assert [row.sent_at is not None for row in core.outcomes(job_id)] == [True, False]


def test_of_two_outcomes_of_a_job_only_the_one_whose_time_has_come_is_sent_again(make_runtime, core, broker):
    core.runtime = make_runtime(continuation_confirm_seconds="30")
    job_id = finished_twice(core)
    assert deliver(core, broker) == 2
    core.sql("UPDATE continuations SET next_at = now() WHERE n = 1")
    broker.sent.clear()
    assert repeat(core, broker) == 1
    assert [task for task, _, _ in broker.sent] == [f"continue-{job_id}-1"]


@pytest.mark.parametrize("breaks", [False, True])
def test_what_was_confirmed_while_it_was_being_sent_stays_confirmed(make_runtime, core, breaks):
    core.runtime = make_runtime(continuation_confirm_seconds="30")
    job_id = core.finished()

    def confirms_at_once(*_: object) -> None:
        outcomes.confirm(core.runtime, job_id, 1)
        if breaks:
            raise ConnectionError

    outcomes.deliver(core.runtime, confirms_at_once, (ConnectionError,))
    assert not due(core, job_id)


def test_an_outcome_of_two_is_put_off_alone(core, broker):
    job_id = finished_twice(core)
    core.sql("UPDATE continuations SET next_at = now() + interval '1 h' WHERE n = 1")
    broker.refuses = True
    deliver(core, broker)
    assert [row.last_error for row in core.outcomes(job_id)] == [None, "ConnectionError"]


def test_two_that_deliver_at_once_take_different_outcomes(core, broker):
    core.finished()
    with core.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM continuations FOR UPDATE")
        assert deliver(core, broker) == 0
    assert deliver(core, broker) == 1


def test_purge_deletes_what_is_finished_handed_over_and_old(make_runtime, core, broker):
    core.runtime = make_runtime(retention_days="2")
    old, recent, waiting = core.finished(), core.finished(), core.create()
    deliver(core, broker)
    unsent = core.finished()
    for job_id in (old, unsent, waiting):
        core.age(job_id, 3 * 86400)
    assert purge(core.runtime) == 1
    left = {str(row.id) for row in core.sql("SELECT id FROM remote_jobs")}
    assert left == {recent, waiting, unsent}
    assert core.attempts(old) == core.outcomes(old) == []


def test_purge_is_bounded(core, broker):
    for _ in range(5):
        core.age(core.finished(), 31 * 86400)
    deliver(core, broker)
    assert purge(core.runtime, batch=2, rounds=1) == 2
    assert purge(core.runtime, batch=2, rounds=10) == 3


def test_a_batchs_key_is_forgotten_with_its_last_job_and_no_other_key_with_it(core, broker):
    gone, alone = core.create_batch([core.fields()], "k1"), core.create_batch([core.fields()], "k2")
    core.tenant = "other"
    others = core.create_batch([core.fields()], "k1")
    core.sql("UPDATE job_batches SET created_at = now() - interval '31 days'")
    core.sql("DELETE FROM remote_jobs WHERE id = :id", id=gone[0])
    purge(core.runtime)
    kept = core.sql("SELECT tenant, idempotency_key, job_ids FROM job_batches ORDER BY tenant")
    assert [(row.tenant, row.idempotency_key, [str(job_id) for job_id in row.job_ids]) for row in kept] == [
        ("default", "k2", alone), ("other", "k1", others)
    ]  # fmt: skip
