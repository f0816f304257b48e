"""Drives the service and its model (tests/support/model.py) side by side, and compares them after each verb."""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bridge.insight import counters
from bridge.jobs.bulk import steer
from bridge.jobs.claim import Claimed
from bridge.jobs.purge import purge
from bridge.mirror.release_due import release_due
from bridge.outbox import outcomes
from models.job_state import Asked, Priority
from tests.support.core import KEY, OTHER_KEY, Core, outcome_of
from tests.support.handing_over import handed_over
from tests.support.model import ACK, BACKOFF, LEASE, QUEUE, SOON, TIMEOUT, Job, Model
from tests.support.model_around import CONFIRM, FINAL, RETENTION
from tests.support.seen import SEEN, same
from tests.support.sound import all_sound
from tests.support.verbs import KINDS, VERBS, WEIGHTED

SETTINGS = {
    "ack_seconds": str(ACK),
    "retry_backoff": "base=100,factor=2,max=400,jitter=0",
    "retention_days": str(RETENTION / 86400),
}
IN_A_ROW = 120  # steps of one machine
MOST_JOBS = 3  # of one machine: each is to be met again and again

KEYS = (KEY, OTHER_KEY)
RANKS = list(Priority)
SOURCES = {Asked.CANCEL: {"pending", "processing"}, Asked.RETRY: FINAL - {"completed"}}
Held = tuple[Claimed, int]  # and which of KEYS has it
_numbers = itertools.count(1)


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
        confirming = core.runtime.settings.model_copy(update={"continuation_confirm_seconds": CONFIRM})
        self.confirming = replace(core.runtime, settings=confirming)
        self.model = Model()
        self.soon = (datetime.now(UTC) + timedelta(seconds=SOON)).isoformat()
        self.held: list[Held] = []
        self.tokens: dict[tuple[str, int], str] = {}
        self.create(2, True, "k1", ("audio", 3, 1, False))

    def teardown(self) -> None:
        all_sound(self.core, self.core.tenant)  # nothing that is unsound heals, so one look at the end sees it
        for table in ("remote_jobs", "job_batches"):
            self.core.sql(f"DELETE FROM {table} WHERE tenant = :tenant", tenant=self.core.tenant)

    @rule(verb=WEIGHTED, data=st.data())
    def step(self, verb: str, data: Any) -> None:
        there = {"job_id": list(self.model.jobs), "claim": self.held[-8:], "outcome": list(self.model.outcomes())}
        arguments = {}
        for name, drawn_from in VERBS[verb][1].items():
            if drawn_from is ... and not there[name]:
                return
            arguments[name] = data.draw(st.sampled_from(there[name]) if drawn_from is ... else drawn_from, name)
        getattr(self, verb)(**arguments)

    def job(self, job_id: Any) -> Job:
        self.model.now += 0.001
        job: Job = self.model.jobs[str(job_id)]
        return job

    def create(self, count: int, batch: bool, key: str | None, asked: tuple[str, int, int, bool]) -> None:
        kind, max_retries, rank, later = asked
        body = (count if batch else None, asked)
        expected = self.model.replayed(key, body)
        if expected is None and len(self.model.jobs) >= MOST_JOBS:
            return
        given: dict[str, Any] = {
            "ingestion_task_id": "task",
            "max_retries": max_retries,
            "priority": str(RANKS[rank]),
            "timeout_seconds": TIMEOUT,
            "queue_timeout_seconds": QUEUE,
            **({"available_at": self.soon} if later else {}),
        }
        self.model.now += 0.001
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
        # In the order of the model's jobs, as PostgreSQL gives none: the next draws must be the same in a replay.
        given = sorted([*outcome.claimed.values(), *again], key=lambda job: list(before).index(str(job.job_id)))
        assert {str(job.job_id) for job in given} == expected
        for job in given:
            known = self.tokens.setdefault((str(job.job_id), job.attempt), job.lease_token)
            assert job.lease_token == known
            assert job.attempt == before[str(job.job_id)] + (0 if again else 1)
            self.held.append((job, key))
            if live:
                self.heartbeat((job, key), False, True)

    def call(self, claim: Held, token: bool, foreign: bool = False) -> tuple[Any, dict[str, Any]]:
        """Return a worker's call about its job, as the model and as the core has it."""
        job, key = claim[0], 1 - claim[1] if foreign else claim[1]
        said = {"key": KEYS[key], **({} if token else {"token": None})}
        return (key, job.attempt if token else None), said

    def heartbeat(self, claim: Held, news: bool, token: bool) -> None:
        call, said = self.call(claim, token)
        progress = 0.5 if news else None
        expected = self.model.heartbeat(self.job(claim[0].job_id), call, progress)
        alive = outcome_of(lambda: self.core.heartbeat(claim[0], progress=progress, **said))
        assert getattr(alive, "status", alive) == expected

    def result(self, claim: Held, success: bool, retryable: bool, content: str, token: bool, foreign: bool) -> None:
        call, said = self.call(claim, token, foreign)
        expected = self.model.result(self.job(claim[0].job_id), call, success, retryable, content)
        body: dict[str, Any] = {"success": success, "retryable": retryable, "content": content}
        answer = outcome_of(lambda: self.core.result(claim[0], **body, **said))
        assert getattr(answer, "status", answer) == expected

    def release(self, claim: Held, token: bool) -> None:
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
        job = self.job(job_id)
        for one in (job, *job.outcomes):
            one.age(seconds)
        self.core.age(job_id, seconds)

    def let_pass_for_all(self, seconds: int) -> None:
        for job_id in self.model.jobs:
            self.let_pass(job_id, seconds)

    def expire(self) -> None:
        self.model.expire()
        self.core.expire()

    def go_silent(self, job_id: str, worker: tuple[int, str], live: bool) -> None:
        """Lose a job repeatedly, by different workers: chance alone reaches this too seldom."""
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
        release_due(self.core.runtime.engine, self.core.runtime.mirror)

    def hand_over(self, broker: str, confirming: bool, times: int) -> None:
        for time in range(times):
            if time:
                self.let_pass_for_all(BACKOFF[-1])
            self.hand_over_once(broker, confirming)

    def hand_over_once(self, broker: str, confirming: bool) -> None:
        for job_id, job in self.model.jobs.items():  # what is due within seconds would be while this is written
            while any(one.is_due(self.model.now + 50) != one.is_due(self.model.now) for one in job.outcomes):
                self.let_pass(job_id, ACK)
        expected = self.model.hand_over(broker, CONFIRM if confirming else None)
        assert handed_over(self.confirming if confirming else self.core.runtime, self.core.tenant, broker) == expected

    def confirm(self, outcome: tuple[str, int]) -> None:
        self.model.confirm(outcome)
        assert outcomes.confirm(self.core.runtime, *outcome)

    def resend(self, outcome: tuple[str, int], named: bool) -> None:
        self.model.now += 0.001
        job_id, n = outcome
        self.model.resend((job_id, n if named else len(self.model.jobs[job_id].outcomes)))
        assert outcomes.resend(self.core.runtime, self.core.tenant, UUID(job_id), n if named else None) == 1

    def resend_failing(self) -> None:
        self.model.now += 0.001
        failing = [which for which, outcome in self.model.outcomes().items() if outcome.state == "failing"]
        for which in failing:
            self.model.resend(which)
        assert outcomes.resend_failing(self.core.runtime, self.core.tenant) == len(failing)

    def purge(self, job_id: str, old: bool) -> None:
        if old:
            self.let_pass(job_id, RETENTION + ACK)
        purge(self.core.runtime)
        for gone in self.model.purge():
            assert outcome_of(lambda: self.core.cancel(gone)) == "not_found"  # noqa: B023
            assert not outcomes.confirm(self.core.runtime, gone, 1)
        self.held = [claim for claim in self.held if str(claim[0].job_id) in self.model.jobs]

    def fold(self) -> None:
        counters.fold(self.core.runtime)

    @invariant()
    def they_agree(self) -> None:
        seen = {str(row.id): row for row in self.core.sql(SEEN, tenant=self.core.tenant)}
        assert seen.keys() == self.model.jobs.keys()
        for job_id, job in self.model.jobs.items():
            same(seen[job_id], job, self.model.now)
        assert self.core.lines(KINDS) == [self.model.next(kind) for kind in KINDS]
        self.at_each()


def drive(
    core: Core, steps: int, *, seed_number: int | None = None, at_each: Callable[[], object] = lambda: None
) -> None:
    """So many steps, by machine after machine; raises what differs first, with the steps that lead to it."""

    class Driven(Machine):
        def __init__(self) -> None:
            super().__init__(core, at_each)

    run_state_machine_as_test(
        Driven if seed_number is None else seed(seed_number)(Driven),
        settings=settings(
            max_examples=max(1, steps // IN_A_ROW),
            stateful_step_count=IN_A_ROW,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
