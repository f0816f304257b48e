"""The service does what the model says, verb by verb, stale tokens and repeated requests included.

`make model` runs it for a million steps (MODEL_STEPS).
"""

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from models.state import Priority
from tests.core import Core, outcome_of
from tests.model import ACK, LEASE, QUEUE, TIMEOUT, Job, Model
from tests.test_races import sound

STEPS = int(os.environ.get("MODEL_STEPS", "6000"))
IN_A_ROW = 60
CONTENTS = st.sampled_from(["text", "another"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
RANKS = list(Priority)


class Machine(RuleBasedStateMachine):
    """Drives both; `held` are claims that somebody had, mostly stale by now."""

    jobs = Bundle("jobs")
    held = Bundle("held")

    def __init__(self, core: Core) -> None:
        super().__init__()
        core.sql("TRUNCATE remote_jobs CASCADE")
        self.core = core
        self.model = Model()
        self.touched: set[str] = set()

    def job(self, job_id: Any) -> Job:
        self.model.now += 0.001
        self.touched.add(str(job_id))
        return self.model.jobs[str(job_id)]

    @rule(target=jobs, max_retries=st.sampled_from([0, 1, 3]), rank=st.sampled_from([0, 1, 2]))
    def create(self, max_retries: int, rank: int) -> str:
        job_id = self.core.create(
            max_retries=max_retries,
            priority=str(RANKS[rank]),
            timeout_seconds=TIMEOUT,
            queue_timeout_seconds=QUEUE,
        )
        self.model.now += 0.001
        self.model.create(job_id, max_retries, rank)
        return job_id

    @rule(target=held, job_id=jobs, worker=WORKERS)
    def claim(self, job_id: str, worker: str) -> Any:
        expected = self.model.claim(self.job(job_id), worker)
        claimed = self.core.claim(job_id, worker, lease=LEASE)
        assert (claimed is not None) == expected
        return claimed

    @rule(claim=held, news=st.booleans())
    def heartbeat(self, claim: Any, news: bool) -> None:
        if claim is not None:
            expected = self.model.heartbeat(self.job(claim.job_id), claim.attempt, news)
            progress = 0.5 if news else None
            alive = outcome_of(lambda: self.core.heartbeat(claim, progress=progress))
            assert getattr(alive, "status", alive) == expected

    @rule(claim=held, success=st.booleans(), retryable=st.booleans(), content=CONTENTS)
    def result(self, claim: Any, success: bool, retryable: bool, content: str) -> None:
        if claim is not None:
            expected = self.model.result(self.job(claim.job_id), claim.attempt, (success, retryable, content))
            said = {"success": success, "retryable": retryable, "content": content}
            answer = outcome_of(lambda: self.core.result(claim, **said))
            assert getattr(answer, "status", answer) == expected

    @rule(claim=held)
    def release(self, claim: Any) -> None:
        if claim is not None:
            expected = self.model.release(self.job(claim.job_id), claim.attempt)
            assert outcome_of(lambda: self.core.release(claim)) == expected

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        expected = self.model.cancel(self.job(job_id))
        assert outcome_of(lambda: self.core.cancel(job_id)) == expected

    @rule(job_id=jobs)
    def restart(self, job_id: str) -> None:
        expected = self.model.restart(self.job(job_id))
        assert outcome_of(lambda: self.core.restart(job_id)) == expected

    @rule(job_id=jobs, seconds=st.sampled_from([ACK, LEASE, TIMEOUT, QUEUE]))
    def let_pass(self, job_id: str, seconds: int) -> None:
        self.job(job_id).age(seconds)
        self.core.age(job_id, seconds)

    @rule()
    def expire(self) -> None:
        self.model.now += 0.001
        self.model.expire()
        self.core.expire()
        self.touched |= set(self.model.jobs)

    @invariant()
    def they_agree(self) -> None:
        for job_id in self.touched:
            self.same(job_id, self.model.jobs[job_id])
            sound(self.core, job_id)
        self.touched.clear()
        assert self.core.next() == self.model.next()[:10]

    def same(self, job_id: str, job: Job) -> None:
        row = self.core.row(job_id)
        assert (row.status, row.attempt, row.worker_id) == (job.status, job.attempt, job.worker)
        assert (row.retry_count, row.return_count, row.outcome_count) == (job.retries, job.returns, job.outcomes)
        assert row.attempt_end == job.end
        assert self.core.hows(job_id) == job.hows
        if job.status in ("pending", "processing"):
            left = "extract(epoch FROM timeout_at - now()), extract(epoch FROM lease_expires_at - now())"
            [(timeout, lease)] = self.core.sql(f"SELECT {left} FROM remote_jobs WHERE id = :id", id=job_id)
            assert abs(float(timeout) - (job.timeout - self.model.now)) < 50
            assert (lease is None) == (job.lease is None)
            assert job.lease is None or abs(float(lease) - (job.lease - self.model.now)) < 50


def test_the_service_does_what_the_model_says(make_runtime):
    runtime = make_runtime(ack_seconds=str(ACK), retry_backoff="base=100,factor=2,max=400,jitter=0")
    core = Core(runtime)
    run_state_machine_as_test(
        lambda: Machine(core),
        settings=settings(
            max_examples=max(1, STEPS // IN_A_ROW),
            stateful_step_count=IN_A_ROW,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
