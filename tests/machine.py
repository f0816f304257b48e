"""Drives the service and its model (tests/model.py) side by side, verb by verb, and compares them after each."""

import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bridge import counts
from bridge.claim import Claimed
from bridge.release_due import release_due
from bridge.steer import steer
from models.state import Asked, JobState, Priority
from tests.core import KEY, OTHER_KEY, Core, outcome_of
from tests.model import ACK, BACKOFF, FINAL, LEASE, QUEUE, SOON, TIMEOUT, Job, Model
from tests.sound import all_sound

SETTINGS = {"ack_seconds": str(ACK), "retry_backoff": "base=100,factor=2,max=400,jitter=0"}
IN_A_ROW = 120  # steps of one machine
MOST_JOBS = 3  # of one machine: each is to be met again and again

SELDOM = st.sampled_from([False, False, False, True])
OFTEN = st.sampled_from([True, True, True, False])
KINDS = ("audio", "video")
KEYS = (KEY, OTHER_KEY)
RANKS = list(Priority)
SOURCES = {Asked.CANCEL: {"pending", "processing"}, Asked.RETRY: FINAL - {"completed"}}
WHO = st.tuples(st.sampled_from([0, 0, 0, 1]), st.sampled_from(["w1", "w2", "w3"]))
ASKED = st.tuples(st.sampled_from(KINDS), st.sampled_from([0, 1, 3, 3]), st.sampled_from([0, 1, 2]), SELDOM)
_numbers = itertools.count(1)

# All that is compared, in one round trip.
SEEN = """
SELECT id, status, attempt, worker_id, retry_count, return_count, outcome_count, attempt_end, progress, mirrored,
  CAST(extract(epoch FROM timeout_at - now()) AS float) AS timeout,
  CAST(extract(epoch FROM lease_expires_at - now()) AS float) AS lease,
  ARRAY(SELECT how FROM job_attempts a WHERE a.job_id = j.id ORDER BY attempt) AS hows
FROM remote_jobs j WHERE tenant = :tenant
"""


# How often each verb is tried, and with what; a job and a claim are drawn from those that there are.
VERBS: dict[str, tuple[int, dict[str, Any]]] = {
    "create": (
        2,
        {
            "count": st.sampled_from([1, 1, 2]),
            "batch": st.booleans(),
            "key": st.sampled_from([None, "k1", "k2"]),
            "asked": ASKED,
        },
    ),
    "claim": (
        7,
        {
            "job_id": ...,
            "worker": WHO,
            "leased": st.booleans(),
            "claim_id": SELDOM,
            "all_": SELDOM,
            "live": OFTEN,
        },
    ),
    "heartbeat": (3, {"claim": ..., "news": st.booleans(), "token": OFTEN}),
    "result": (
        5,
        {
            "claim": ...,
            "success": SELDOM,
            "retryable": OFTEN,
            "content": st.sampled_from(["text", "another"]),
            "token": OFTEN,
            "foreign": SELDOM,
        },
    ),
    "release": (2, {"claim": ..., "token": st.booleans()}),
    "cancel": (1, {"job_id": ...}),
    "restart": (3, {"job_id": ...}),
    "steer": (
        2,
        {
            "asked": st.sampled_from(Asked),
            "kind": st.sampled_from(KINDS),
            "status": st.sampled_from([None, *JobState]),
            "dry_run": st.booleans(),
        },
    ),
    "let_pass": (4, {"job_id": ..., "seconds": st.sampled_from([ACK, LEASE, TIMEOUT, QUEUE])}),
    "let_pass_for_all": (5, {"seconds": st.sampled_from([ACK, LEASE])}),
    "expire": (5, {}),
    "go_silent": (9, {"job_id": ..., "worker": WHO, "live": st.booleans()}),
    "kill_key": (1, {"key": st.sampled_from([0, 1]), "revoked": st.booleans()}),
    "release_due": (1, {}),
    "fold": (1, {}),
}
WEIGHTED = st.sampled_from([verb for verb, (weight, _) in VERBS.items() for _ in range(weight)])


class Machine(RuleBasedStateMachine):
    """Has a tenant of its own; `held` are claims that somebody had, mostly stale by now.

    It has one rule, because of several hypothesis leaves out some in each run (swarm testing), and without claims
    there is nothing to see.
    """

    def __init__(self, core: Core, at_each: Callable[[], object]) -> None:
        super().__init__()
        core.tenant = f"model-{os.getpid()}-{next(_numbers)}"
        self.core = core
        self.at_each = at_each
        self.model = Model()
        self.soon = (datetime.now(UTC) + timedelta(seconds=SOON)).isoformat()
        self.held: list[tuple[Claimed, int]] = []
        self.tokens: dict[tuple[str, int], str] = {}
        self.create(2, True, None, ("audio", 3, 1, False))

    def teardown(self) -> None:
        all_sound(self.core, self.core.tenant)  # nothing that is unsound heals, so one look at the end sees it
        self.core.sql("DELETE FROM remote_jobs WHERE tenant = :tenant", tenant=self.core.tenant)

    @rule(verb=WEIGHTED, data=st.data())
    def step(self, verb: str, data: Any) -> None:
        there = {"job_id": list(self.model.jobs), "claim": self.held[-8:]}
        arguments = {}
        for name, drawn_from in VERBS[verb][1].items():
            if drawn_from is ... and not there[name]:
                return
            arguments[name] = data.draw(st.sampled_from(there[name]) if drawn_from is ... else drawn_from, name)
        getattr(self, verb)(**arguments)

    def job(self, job_id: Any) -> Job:
        self.model.now += 0.001
        return self.model.jobs[str(job_id)]

    def create(self, count: int, batch: bool, key: str | None, asked: tuple[str, int, int, bool]) -> None:
        if len(self.model.jobs) >= MOST_JOBS:
            return
        kind, max_retries, rank, later = asked
        body = (count if batch else None, asked)
        given: dict[str, Any] = {
            "ingestion_task_id": "task",
            "max_retries": max_retries,
            "priority": str(RANKS[rank]),
            "timeout_seconds": TIMEOUT,
            "queue_timeout_seconds": QUEUE,
            **({"available_at": self.soon} if later else {}),
        }
        self.model.now += 0.001
        expected = self.model.replayed(key, body)
        if batch:
            ids = outcome_of(lambda: self.core.create_batch([self.core.fields(kind, **given)] * count, key))
        else:
            ids = outcome_of(lambda: [self.core.create(kind, idempotency_key=key, **given)])
        if expected is not None:
            assert ids == expected
            return
        if key is not None:
            self.model.keys[key] = body, ids
        self.model.create(ids, *asked)

    def claim(self, job_id: str, worker: tuple[int, str], leased: bool, claim_id: bool, all_: bool, live: bool) -> None:
        self.model.now += 0.001
        key, name = worker
        named = "c1" if claim_id else None
        offered = list(self.model.jobs) if all_ else [job_id]
        before = {job_id: job.attempt for job_id, job in self.model.jobs.items()}
        expected = self.model.claim(offered, worker, leased, named)
        lease = LEASE if leased else None
        outcome = self.core.offer(offered, name, key=KEYS[key], lease=lease, claim_id=named)
        again = [job for jobs in outcome.again.values() for job in jobs]
        given = [*outcome.claimed.values(), *again]
        assert {str(job.job_id) for job in given} == expected
        for job in given:
            known = self.tokens.setdefault((str(job.job_id), job.attempt), job.lease_token)
            assert job.lease_token == known
            assert job.attempt == before[str(job.job_id)] + (0 if again else 1)
            self.held.append((job, key))
            if live:
                self.heartbeat((job, key), False, True)

    def call(self, claim: tuple[Claimed, int], token: bool, foreign: bool = False) -> tuple[Any, dict[str, Any]]:
        """A worker's call about its job, as the model and as the core has it."""
        job, key = claim[0], 1 - claim[1] if foreign else claim[1]
        said = {"key": KEYS[key], **({} if token else {"token": None})}
        return (key, job.attempt if token else None), said

    def heartbeat(self, claim: tuple[Claimed, int], news: bool, token: bool) -> None:
        call, said = self.call(claim, token)
        progress = 0.5 if news else None
        expected = self.model.heartbeat(self.job(claim[0].job_id), call, progress)
        alive = outcome_of(lambda: self.core.heartbeat(claim[0], progress=progress, **said))
        assert getattr(alive, "status", alive) == expected

    def result(
        self,
        claim: tuple[Claimed, int],
        success: bool,
        retryable: bool,
        content: str,
        token: bool,
        foreign: bool,
    ) -> None:
        call, said = self.call(claim, token, foreign)
        expected = self.model.result(self.job(claim[0].job_id), call, success, retryable, content)
        body = {"success": success, "retryable": retryable, "content": content}
        answer = outcome_of(lambda: self.core.result(claim[0], **body, **said))
        assert getattr(answer, "status", answer) == expected

    def release(self, claim: tuple[Claimed, int], token: bool) -> None:
        call, said = self.call(claim, token)
        expected = self.model.release(self.job(claim[0].job_id), call)
        assert outcome_of(lambda: self.core.release(claim[0], **said)) == expected

    def cancel(self, job_id: str) -> None:
        expected = self.model.cancel(self.job(job_id))
        assert outcome_of(lambda: self.core.cancel(job_id)) == expected

    def restart(self, job_id: str) -> None:
        expected = self.model.restart(self.job(job_id))
        assert outcome_of(lambda: self.core.restart(job_id)) == expected

    def steer(self, asked: Asked, kind: str, status: str | None, dry_run: bool) -> None:
        self.model.now += 0.001
        fit = [job for job in self.model.jobs.values() if job.kind == kind and job.status in SOURCES[asked]]
        fit = [job for job in fit if status in (None, job.status)]
        for job in [] if dry_run else fit:
            self.model.cancel(job) if asked is Asked.CANCEL else self.model.restart(job)
        filters = {"content_type": kind, "status": status}
        done = steer(self.core.runtime, self.core.of(KEY), asked, filters, dry_run=dry_run)
        assert done == (len(fit), 0 if dry_run else len(fit))

    def let_pass(self, job_id: str, seconds: int) -> None:
        self.job(job_id).age(seconds)
        self.core.age(job_id, seconds)

    def let_pass_for_all(self, seconds: int) -> None:
        for job_id in self.model.jobs:
            self.let_pass(job_id, seconds)

    def expire(self) -> None:
        self.model.expire()
        self.core.expire()

    def go_silent(self, job_id: str, worker: tuple[int, str], live: bool) -> None:
        """What is lost again and again, by different workers, is reached by chance too seldom."""
        self.let_pass(job_id, BACKOFF[-1])
        self.claim(job_id, worker, leased=True, claim_id=False, all_=False, live=live)
        self.let_pass(job_id, LEASE)
        self.expire()

    def kill_key(self, key: int, revoked: bool) -> None:
        """And comes to life again, which no key does: the other verbs of the machine go on with it."""
        self.model.expire(dead_key=key)
        clock = "revoked_at" if revoked else "expires_at"
        self.core.sql(
            f"INSERT INTO api_keys (id, prefix, secret_hash, name, tenant, scopes, {clock})"
            " VALUES (:id, 'dead', '', 'dead', 'model', '{work}', now())",
            id=KEYS[key].key_id,
        )
        self.core.expire()
        self.core.sql("DELETE FROM api_keys")

    def release_due(self) -> None:
        self.model.now += 0.001
        for job in self.model.jobs.values():
            job.mirrored |= job.status == "pending" and job.available <= self.model.now
        release_due(self.core.runtime)

    def fold(self) -> None:
        counts.fold(self.core.runtime)

    @invariant()
    def they_agree(self) -> None:
        seen = {str(row.id): row for row in self.core.sql(SEEN, tenant=self.core.tenant)}
        assert seen.keys() == self.model.jobs.keys()
        for job_id, job in self.model.jobs.items():
            same(seen[job_id], job, self.model.now)
        assert self.core.lines(KINDS) == [self.model.next(kind) for kind in KINDS]
        self.at_each()


def same(row: Any, job: Job, now: float) -> None:
    assert (row.status, row.attempt, row.worker_id) == (job.status, job.attempt, job.worker and job.worker[1])
    assert (row.retry_count, row.return_count, row.outcome_count) == (job.retries, job.returns, job.outcomes)
    assert (row.attempt_end, row.progress, row.mirrored) == (job.end, job.progress, job.mirrored)
    assert row.hows == [how for _, how in job.ends]
    assert (row.lease is None) == (job.lease is None)
    if job.status not in FINAL:
        assert abs(row.timeout - (job.timeout - now)) < 50
        assert row.lease is None or abs(row.lease - (job.lease - now)) < 50


def drive(
    core: Core, steps: int, *, seed_number: int | None = None, at_each: Callable[[], object] = lambda: None
) -> None:
    """So many steps, by machine after machine; raises what differs first, with the steps that lead to it."""

    def machine() -> Machine:
        return Machine(core, at_each)

    run_state_machine_as_test(
        machine if seed_number is None else seed(seed_number)(machine),
        settings=settings(
            max_examples=max(1, steps // IN_A_ROW),
            stateful_step_count=IN_A_ROW,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
