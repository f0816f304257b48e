"""The history checker on real claims from real PostgreSQL: the bridge's pass, SELECT-then-UPDATE is caught."""

import threading
from concurrent.futures import ThreadPoolExecutor

from bridge.jobs.claim import Claimant, claim, next_in_line
from bridge.queues import Queue
from tests.chaos import unguarded
from tests.chaos.checker import INVARIANTS
from tests.chaos.end_state import EndState, read_jobs
from tests.chaos.history import Given, History, Outcome
from tests.support.core import KEY, Answer, outcome_of

ROUNDS, WORKERS = 40, 4
TYPES = frozenset({"audio"})


def claims(core, claim, next_in_line) -> tuple[History, EndState]:
    """Return rounds in which several workers ask for one job at once, and the one that gets it submits a result."""
    history, end = History(), EndState()
    barrier = threading.Barrier(WORKERS)

    def work(name: str) -> None:
        for _ in range(ROUNDS):
            barrier.wait(30)
            poll = history.begin(name, "poll", "default", worker=name, content_types=TYPES)
            with core.engine.begin() as connection:
                found = next_in_line(connection, {Queue("default", "audio"): 1}).found
                offers = [
                    (entry.job_id, Claimant(KEY.key_id, name, 60)) for entries in found.values() for entry in entries
                ]
                given = [*claim(connection, offers, 60).claimed.values()]
            poll.given = tuple(Given(str(job.job_id), job.attempt, job.lease_token, "audio") for job in given)
            poll.ended, poll.outcome = poll.began, Outcome.OK
            barrier.wait(30)
            for job in given:
                said = {"job_id": str(job.job_id), "attempt": job.attempt, "worker": name, "content": job.lease_token}
                call = history.begin(name, "result", "default", **said)
                answer = outcome_of(lambda: core.result(job, content=job.lease_token))  # noqa: B023
                call.outcome = Outcome.OK if isinstance(answer, Answer) else Outcome.REFUSED
                call.ended = call.began
            barrier.wait(30)
            if name == "w0":
                create()

    def create() -> None:
        call = history.begin("producer", "create", "default", key=f"k{len(history.calls)}")
        call.job_ids, call.outcome = (core.create(idempotency_key=call.key),), Outcome.OK
        call.ended = call.began

    create()
    with ThreadPoolExecutor(WORKERS) as pool:
        for one in [pool.submit(work, f"w{n}") for n in range(WORKERS)]:
            one.result(120)
    core.cancel(history.of("create")[-1].job_ids[0])
    history.begin("producer", "cancel", "default", job_id=history.of("create")[-1].job_ids[0])
    read_jobs(core.engine, end)
    return history, end


def broken(history: History, end: EndState) -> set[str]:
    """Return the invariants of claims and results that do not hold."""
    looked_at = ("conservation", "no invention", "isolation", "disjoint leases", "fencing", "one result", "legal paths")
    return {name for name in looked_at if [*INVARIANTS[name](history, end)]}


def test_the_claims_of_the_bridge_pass(core):
    history, end = claims(core, claim, next_in_line)
    assert sum(len(poll.given) for poll in history.of("poll")) == ROUNDS
    assert broken(history, end) == set()


def test_a_claim_by_select_then_update_is_caught(core):
    history, end = claims(core, unguarded.claim, unguarded.next_in_line)
    assert sum(len(poll.given) for poll in history.of("poll")) > ROUNDS
    assert "disjoint leases" in broken(history, end)
