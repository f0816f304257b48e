"""Races of two verbs about one job, a hundred rounds each on real PostgreSQL: one winner, the loser is told.

After each round the job is sound (tests/support/sound.py).
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from bridge.caller import Caller
from bridge.jobs.claim import Claimant, claim, replay
from bridge.workers.quarantine import watch
from tests.support.core import KEY, Answer, Core, outcome_of
from tests.support.sound import sound

ROUNDS = 100
MOST_ROUNDS = 2000  # until each has won


def race(
    setup: Callable[[], Any],
    *verbs: Callable[[Any], Any],
    rounds: int = ROUNDS,
    until: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[Any, list[Any]]]:
    """Each round a fresh subject, on which all verbs let go at once; (subject, what became of each).

    It goes on for `rounds`, and then `until` all was seen that is to be seen, at most MOST_ROUNDS in all.
    """
    barrier = threading.Barrier(len(verbs))

    def run(verb: Callable[[Any], Any], subject: Any) -> Any:
        barrier.wait(30)
        return outcome_of(lambda: verb(subject))

    with ThreadPoolExecutor(len(verbs)) as pool:
        for round_ in range(MOST_ROUNDS):
            if round_ >= rounds and until():
                return
            subject = setup()
            order = [*range(len(verbs))]
            if round_ % 2:
                order.reverse()
            futures = {n: pool.submit(run, verbs[n], subject) for n in order}
            yield subject, [futures[n].result(60) for n in range(len(verbs))]


def sound_race(core: Core, *given, **how) -> Iterator[tuple[Any, list[Any]]]:
    """Race about one job, which is sound after each round."""
    for subject, became in race(*given, **how):
        yield subject, became
        sound(core, getattr(subject, "job_id", subject))


def overdue(core: Core, **fields):
    job = core.held(**fields)
    core.age(job.job_id, 61)
    return job


@pytest.mark.slow
def test_two_polls_of_one_claim_in_two_processes(core):
    """One claims, the other is given the same; and whoever claims for several claims at once never locks up."""

    def setup():
        return [[core.create() for _ in range(2)] for _ in range(2)]

    def poll(place: int):
        def verb(subject):
            order = [1, 0] if place else [0, 1]
            offers = [(subject[claim_][place], Claimant(KEY.key_id, "w1", 60, f"c{claim_}")) for claim_ in order]
            with core.engine.begin() as connection:
                outcome = claim(connection, offers, 60)
            given = {n: [job] for n, job in outcome.claimed.items()} | outcome.again
            return {order[n]: [(job.job_id, job.lease_token) for job in jobs] for n, jobs in given.items()}

        return verb

    winners: Counter[int] = Counter()
    for subject, (one, other) in race(setup, poll(0), poll(1), until=lambda: len(winners) == 2):
        assert one == other
        assert [len(one[0]), len(one[1])] == [1, 1]
        for ids, jobs in zip(subject, [one[0], one[1]], strict=True):
            winners[ids.index(str(jobs[0][0]))] += 1
            assert sorted(core.status(job_id) for job_id in ids) == ["pending", "processing"]
        core.sql("DELETE FROM remote_jobs")  # a TRUNCATE takes longer than the round
    assert min(winners[0], winners[1]) > 0


def test_result_and_expiry(core):
    seen: Counter[str] = Counter()
    for job, (result, expired) in sound_race(core, lambda: overdue(core), core.result, lambda _: core.expire()):
        # The late rule makes both orders a success: the job is completed by its one result.
        assert result == Answer("completed", True)
        seen["expired first" if expired else "result first"] += 1
        assert core.status(job.job_id) == "completed"
    assert seen["result first"] > 0


@pytest.mark.slow
def test_failure_and_expiry_spend_one_retry(core):
    for job, (result, _) in sound_race(
        core, lambda: overdue(core), lambda job: core.result(job, success=False), lambda _: core.expire()
    ):
        assert result == Answer("pending", False)
        assert core.row(job.job_id).retry_count == 1


@pytest.mark.slow
def test_heartbeat_and_expiry(core):
    for job, (alive, expired) in race(lambda: overdue(core), core.heartbeat, lambda _: core.expire()):
        if expired:
            assert alive == "lease_lost" or alive.status == "processing"
            assert core.status(job.job_id) == "pending"
        else:
            assert alive.lease_expires_at == core.row(job.job_id).lease_expires_at
            assert core.status(job.job_id) == "processing"
        sound(core, job.job_id)
        core.cancel(job.job_id)


def test_cancel_and_claim(core):
    for job_id, (cancelled, job) in sound_race(core, core.create, core.cancel, core.claim):
        assert cancelled == "cancelled"
        assert core.status(job_id) == "cancelled"
        if job is not None:
            assert core.heartbeat(job).cancel_requested


def test_cancel_and_result(core):
    seen: Counter[str] = Counter()
    for job, (cancelled, result) in sound_race(
        core, core.held, lambda job: core.cancel(job.job_id), core.result, until=lambda: len(seen) == 2
    ):
        assert (cancelled, result) in [("cancelled", "already_finished"), ("already_finished", ("completed", True))]
        assert core.status(job.job_id) == ("cancelled" if cancelled == "cancelled" else "completed")
        seen[str(cancelled)] += 1
    assert len(seen) == 2, "each won sometimes"


def test_release_and_expiry(core):
    for job, (released, expired) in sound_race(core, lambda: overdue(core), core.release, lambda _: core.expire()):
        assert (released, expired) in [("pending", 0), ("lease_lost", 1)]
        assert core.row(job.job_id).retry_count == (1 if expired else 0)


def test_a_replayed_poll_and_the_acknowledgement(core):
    who = Claimant(KEY.key_id, "w1", 60, "c1")

    def poll_again(job):
        with core.engine.connect() as connection:
            return replay(connection, [who]).get(0, [])

    claimed = lambda: core.claim(core.create(), claim_id="c1")  # noqa: E731
    for job, (alive, again) in sound_race(core, claimed, core.heartbeat, poll_again):
        assert alive.status == "processing"
        assert [other.lease_token for other in again] in ([], [job.lease_token])


def test_two_claims_of_one_job(core):
    for job_id, claims in sound_race(core, core.create, core.claim, lambda job_id: core.claim(job_id, "w2")):
        assert claims.count(None) == 1
        assert core.row(job_id).attempt == 1


@pytest.mark.parametrize("retries", [0, 3])
def test_two_sweeps(core, retries):
    sweep = lambda _: core.expire()  # noqa: E731
    for job, changed in sound_race(core, lambda: overdue(core, max_retries=retries), sweep, sweep):
        assert sum(changed) == 1
        assert core.hows(job.job_id) == ["lease_expired"]
        assert len(core.outcomes(job.job_id)) == (1 if retries == 0 else 0)


def test_a_late_result_and_a_new_claim(core):
    def late():
        job = overdue(core, max_retries=1)
        core.expire()
        core.age(job.job_id, 60)
        return job

    seen: Counter[str] = Counter()
    turns = itertools.count()

    def claim(job):
        for _ in range(next(turns) % 3):  # the result reads before it writes: else the claim nearly always wins
            core.row(job.job_id)
        return core.claim(str(job.job_id), "w2")

    for _, (result, taken) in sound_race(core, late, core.result, claim, until=lambda: len(seen) == 2):
        if taken is None:
            assert result == ("completed", True)
            seen["late"] += 1
        else:
            assert result == "lease_lost"
            assert core.result(taken).status == "completed"
            seen["claimed"] += 1
    assert len(seen) == 2, "each won sometimes"


def test_six_results_at_once(core):
    texts = [f"text {n}" for n in range(6)]
    verbs = [lambda job, said=said: core.result(job, content=said) for said in texts]
    for _, answers in sound_race(core, core.held, *verbs, rounds=150):
        assert answers.count(Answer("completed", True)) == 1
        assert answers.count("already_finished") == 5


def test_one_result_repeated_six_times_at_once(core):
    for job, answers in sound_race(core, core.held, *[core.result] * 6):
        assert answers == [Answer("completed", True)] * 6
        assert len(core.attempts(job.job_id)) == 1


def test_operators_retry_and_its_repetition(core):
    def failed():
        job = core.held()
        core.result(job, success=False, retryable=False)
        return job

    restart = lambda job: core.restart(job.job_id)  # noqa: E731
    for job, answers in sound_race(core, failed, restart, restart):
        assert answers == ["pending", "pending"]
        assert core.row(job.job_id).retry_count == 0


def test_cancel_and_queue_clock(core):
    def waiting():
        job_id = core.create()
        core.age(job_id, 90000)
        return job_id

    for _, (cancelled, expired) in sound_race(core, waiting, core.cancel, lambda _: core.expire()):
        assert (cancelled, expired) in [("cancelled", 0), ("already_finished", 1)]


@pytest.mark.parametrize("pauses", [1, 2])
@pytest.mark.slow
def test_two_watches_pause_a_worker_in_trouble_once(core, pauses):
    for _ in range(3):
        core.result(core.held(max_retries=0), success=False)
    assert watch(core.runtime) == 1

    def troubled():
        """Make its three claims those of a worker that was not paused yet, or whose first pause is over."""
        core.sql("UPDATE job_attempts SET claimed_at = now(), ended_at = now()")
        if pauses == 1:
            core.sql("DELETE FROM worker_pauses")
        else:
            core.sql("UPDATE worker_pauses SET in_a_row = 1, until = now() - interval '1 s',"
                     " paused_at = now() - interval '1 hour'")  # fmt: skip

    watches = [lambda _: watch(core.runtime)] * 4
    for _, changed in race(troubled, *watches, rounds=50):
        assert sum(changed) == 1
        assert [row.in_a_row for row in core.sql("SELECT in_a_row FROM worker_pauses")] == [pauses]


def test_two_keys_results(core):
    stranger = Caller(UUID(int=9))
    for _, (mine, theirs) in sound_race(core, core.held, core.result, lambda job: core.result(job, key=stranger)):
        assert mine == Answer("completed", True)
        assert theirs in ("lease_lost", "already_finished")
