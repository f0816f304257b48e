"""Outcomes that were lost several times: sent again sooner once the pipeline confirms, and never in a storm."""

import pytest

from bridge.outbox import outcomes
from bridge.outbox.resend_sooner import ResendSooner, resend_sooner
from tests.outbox.test_outbox_core import due_in, finished_twice
from tests.support.core import Core

FIRST = 30.0


@pytest.fixture
def core(make_runtime, core) -> Core:
    core.runtime = make_runtime(continuation_confirm_seconds=str(int(FIRST)))
    return core


def lost(core: Core, times: int, jobs: int = 1) -> list[str]:
    """Outcomes that were sent so many times, just now for the last time, and never confirmed."""
    made = [core.finished() for _ in range(jobs)]
    assert send(core) == jobs
    for _ in range(times - 1):
        core.sql("UPDATE continuations SET next_at = now() WHERE job_id = ANY(CAST(:ids AS uuid[]))", ids=made)
        assert send(core) == jobs
    return made


def send(core: Core, **options) -> int:
    first = outcomes.deliver(core.runtime, lambda *_: None, (), jitter=0)
    return first + outcomes.repeat(core.runtime, lambda *_: None, (), 0, jitter=0, **options)


def pass_time(core: Core, seconds: float) -> None:
    core.sql("UPDATE continuations SET sent_at = sent_at - make_interval(secs => :s),"
             " next_at = next_at - make_interval(secs => :s)", s=seconds)  # fmt: skip


@pytest.mark.parametrize("tries", [3, 5, 12])
def test_while_the_pipeline_confirms_waits_grow_by_one_step_a_try(core, tries):
    [job_id] = lost(core, tries)
    assert due_in(core, job_id) > FIRST * tries + 20
    assert resend_sooner(core.runtime, jitter=0) == 1
    assert FIRST * tries - 5 < due_in(core, job_id) <= FIRST * tries
    assert resend_sooner(core.runtime, jitter=0) == 0, "once made sooner, it stays as it is"


def test_what_has_waited_that_long_already_is_due_at_once_and_sent_by_the_next_sweep(core):
    [job_id] = lost(core, 12)
    pass_time(core, FIRST * 12 + 1)
    assert send(core) == 0
    assert resend_sooner(core.runtime, jitter=0) == 1
    assert due_in(core, job_id) < 0
    assert send(core) == 1
    assert due_in(core, job_id) > 3000, "the next wait is as long as if nothing had been heard"


def test_with_its_jitter_an_outcome_is_hastened_once_and_stays_apart_from_others(core):
    jobs = lost(core, 8, jobs=6)
    core.sql("UPDATE continuations SET sent_at = now()")
    assert resend_sooner(core.runtime) == 6
    assert resend_sooner(core.runtime) == 0
    waits = [due_in(core, job_id) / (8 * FIRST) for job_id in jobs]
    assert 0.78 < min(waits) < max(waits) <= 1.2
    assert max(waits) - min(waits) > 0.02


def test_first_and_second_sendings_and_confirmed_outcomes_are_left_alone(core):
    once, twice, confirmed = lost(core, 1)[0], lost(core, 2)[0], lost(core, 9)[0]
    assert outcomes.confirm(core.runtime, confirmed, 1)
    before = due_in(core, once), due_in(core, twice)
    assert resend_sooner(core.runtime) == 0
    assert all(0 <= then - now < 5 for then, now in zip(before, (due_in(core, once), due_in(core, twice)), strict=True))
    assert core.outcomes(confirmed)[0].next_at is None


def test_of_two_outcomes_of_a_job_only_the_late_one_is_hastened(core):
    finished_twice(core)
    assert send(core) == 2
    core.sql("UPDATE continuations SET tries = 9, next_at = now() + interval '1 hour' WHERE n = 2")
    assert resend_sooner(core.runtime, jitter=0) == 1
    waits = core.sql("SELECT n, extract(epoch FROM next_at - now()) AS s FROM continuations ORDER BY n")
    assert [round(float(row.s) / FIRST) for row in waits] == [1, 9]


def test_what_the_broker_refuses_waits_for_the_broker(core):
    job_id = core.finished()
    core.sql("UPDATE continuations SET tries = 9, next_at = now() + interval '300 s', last_error = 'ConnectionError'")
    assert resend_sooner(core.runtime) == 0
    assert due_in(core, job_id) > 290


def test_tries_that_the_broker_refused_do_not_lengthen_the_waits_for_a_confirmation(core):
    job_id = core.finished()
    core.sql("UPDATE continuations SET tries = 9, next_at = now(), last_error = 'ConnectionError'")
    assert send(core) == 1
    assert FIRST - 5 < due_in(core, job_id) <= FIRST
    [row] = core.outcomes(job_id)
    assert (row.tries, row.state, row.last_error) == (1, "waiting", None)


def test_the_longest_waits_are_shortened_first_and_as_many_as_may_be(core):
    short, long = lost(core, 4, jobs=2), lost(core, 9, jobs=2)
    assert resend_sooner(core.runtime, most=2, jitter=0) == 2
    assert all(due_in(core, job_id) <= 9 * FIRST for job_id in long)
    assert all(due_in(core, job_id) > 4 * FIRST for job_id in short)
    assert resend_sooner(core.runtime, most=2, jitter=0) == 2
    assert resend_sooner(core.runtime, most=2, jitter=0) == 0


def test_what_somebody_has_in_hand_is_passed_over(core):
    [job_id] = lost(core, 6)
    with core.engine.begin() as other:
        other.exec_driver_sql("SELECT 1 FROM continuations FOR UPDATE")
        assert resend_sooner(core.runtime) == 0
    assert resend_sooner(core.runtime) == 1
    assert due_in(core, job_id) < 8 * FIRST


def test_what_may_lie_in_the_pipelines_queue_is_not_sent_again_though_hastened(core):
    lost(core, 12, jobs=3)
    pass_time(core, FIRST * 15)
    assert resend_sooner(core.runtime) == 3
    assert outcomes.repeat(core.runtime, lambda *_: None, (), 3) == 0
    assert outcomes.repeat(core.runtime, lambda *_: None, (), 1) == 2


def test_one_that_is_never_confirmed_costs_a_pipeline_that_works_ever_less(core):
    [job_id] = lost(core, 1)
    sent, passed = 1, 0.0
    while passed < 86_400:
        resend_sooner(core.runtime, jitter=0)
        passed += (wait := due_in(core, job_id) + 1)
        pass_time(core, wait)
        assert send(core) == 1
        sent += 1
    assert sent < 80, "after a day, one each 38 minutes"


def test_without_confirmations_nothing_waits(make_runtime, core):
    core.runtime = make_runtime(continuation_confirm_seconds=None)
    assert resend_sooner(core.runtime) == 0


def test_a_process_hastens_at_most_each_ten_seconds(core):
    after = ResendSooner()
    [first] = lost(core, 5)
    after(core.runtime)
    assert due_in(core, first) <= 6 * FIRST
    [second] = lost(core, 5)
    after(core.runtime)
    assert due_in(core, second) > 10 * FIRST
    other = ResendSooner(every=0)
    other(core.runtime)
    assert due_in(core, second) <= 6 * FIRST
    [third] = lost(core, 5)
    other(core.runtime)
    assert due_in(core, third) <= 6 * FIRST
