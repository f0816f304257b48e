"""What the contract (§2) says becomes of a job: the model that tests/test_model.py holds the service to.

Time is a number of seconds; `now` grows a little at each verb, and a job ages by hundreds of seconds, far more than
a test takes, so that the service's own clock cannot blur what is due.
"""

from dataclasses import dataclass, field

ACK, TIMEOUT, QUEUE, LEASE = 100, 1000, 5000, 300
BACKOFF = (100, 200, 400, 400)  # base=100,factor=2,max=400,jitter=0
FINAL = {"completed", "failed", "timeout", "cancelled"}
LATE = {"lease_expired", "unacknowledged"}


@dataclass
class Job:
    """A job; its moments are in seconds of the model's clock."""

    max_retries: int
    priority: int
    queued: float
    available: float
    timeout: float
    status: str = "pending"
    attempt: int = 0
    worker: str | None = None
    lease: float | None = None
    acknowledged: bool = False
    end: str | None = None
    ended: float = 0.0
    retries: int = 0
    returns: int = 0
    outcomes: int = 0
    hows: list[str] = field(default_factory=list)
    by: list[str | None] = field(default_factory=list)  # the workers of the ended attempts
    forgiven: int = 0  # attempts before an operator's retry
    accepted: dict[int, object] = field(default_factory=dict)  # attempt → the result that was accepted

    def age(self, seconds: float) -> None:
        self.queued -= seconds
        self.available -= seconds
        self.timeout -= seconds
        self.ended -= seconds
        if self.lease is not None:
            self.lease -= seconds


class Model:
    """All jobs, and the verbs; each returns what the service is to answer."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.now = 0.0

    def create(self, job_id: str, max_retries: int, priority: int) -> None:
        self.jobs[job_id] = Job(max_retries, priority, self.now, self.now, self.now + QUEUE)

    def claimable(self, job: Job) -> bool:
        return job.status == "pending" and job.available <= self.now < job.timeout

    def next(self) -> list[str]:
        waiting = [job_id for job_id, job in self.jobs.items() if self.claimable(job)]
        return sorted(waiting, key=lambda job_id: (self.jobs[job_id].priority, self.jobs[job_id].queued, job_id))

    def claim(self, job: Job, worker: str) -> bool:
        shunned = job.end == "released" and job.worker == worker and job.ended > self.now - 10
        if not self.claimable(job) or shunned:
            return False
        job.status, job.attempt, job.worker = "processing", job.attempt + 1, worker
        job.acknowledged, job.end, job.lease, job.timeout = False, None, self.now + ACK, self.now + TIMEOUT
        return True

    def heartbeat(self, job: Job, attempt: int, news: bool) -> str:
        if attempt == job.attempt and job.status == "cancelled" and job.end == "cancelled":
            return "cancelled"
        if attempt != job.attempt or job.status != "processing":
            return "lease_lost"
        assert job.lease is not None
        if news or not job.acknowledged or job.lease < min(self.now + LEASE * 2 / 3, job.timeout):
            job.lease = min(self.now + LEASE, job.timeout)
        job.acknowledged = True
        return "processing"

    def result(self, job: Job, attempt: int, said: tuple[bool, bool, str]) -> str:
        success, retryable, _ = said
        late = job.status == "pending" and job.end in LATE
        if attempt != job.attempt or not (job.status == "processing" or late):
            if job.accepted.get(attempt) == said:
                return job.status
            return self.refusal(job, attempt)
        job.accepted[attempt] = said
        how = "completed" if success else "failed"
        if late:
            job.hows[-1] = job.end = how
        else:
            self.end_attempt(job, how)
        if success:
            self.finish(job, "completed")
        elif not retryable:
            self.finish(job, "failed")
        elif not late:
            self.retry(job)
        return job.status

    def refusal(self, job: Job, attempt: int) -> str:
        if job.status in FINAL:
            return "already_finished"
        return "lease_lost" if attempt != job.attempt else "not_processing"

    def release(self, job: Job, attempt: int) -> str:
        if attempt == job.attempt and job.status == "pending" and job.end == "released":
            return "pending"
        if attempt != job.attempt or job.status != "processing":
            return "lease_lost"
        self.give_back(job, "released")
        return job.status

    def cancel(self, job: Job) -> str:
        if job.status in FINAL - {"cancelled"}:
            return "already_finished"
        if job.status == "processing":
            self.end_attempt(job, "cancelled")
        if job.status != "cancelled":
            self.finish(job, "cancelled")
        return "cancelled"

    def restart(self, job: Job) -> str:
        if job.status in ("completed", "processing"):
            return "already_finished" if job.status == "completed" else "not_ready"
        if job.status != "pending":
            job.status, job.retries, job.returns, job.end = "pending", 0, 0, None
            job.forgiven = job.attempt
            self.wait(job, self.now)
        return "pending"

    def expire(self) -> None:
        for job in self.jobs.values():
            if job.status == "pending" and job.timeout <= self.now:
                self.finish(job, "timeout")
            elif job.status == "processing" and not job.acknowledged and job.lease <= self.now:  # type: ignore[operator]
                self.give_back(job, "unacknowledged")
            elif job.status == "processing" and job.acknowledged and job.timeout <= self.now:
                self.end_attempt(job, "timeout")
                self.finish(job, "timeout")
            elif job.status == "processing" and job.acknowledged and job.lease <= self.now:  # type: ignore[operator]
                self.end_attempt(job, "lease_expired")
                ends = list(zip(job.by, job.hows, strict=True))[job.forgiven :]
                if len({worker for worker, how in ends if how == "lease_expired"}) == 3:
                    self.finish(job, "failed")
                else:
                    self.retry(job)

    # What the verbs are made of.

    def end_attempt(self, job: Job, how: str) -> None:
        job.hows.append(how)
        job.by.append(job.worker)
        job.end, job.ended, job.lease = how, self.now, None

    def give_back(self, job: Job, how: str) -> None:
        self.end_attempt(job, how)
        job.returns += 1
        if job.returns == 5:
            job.returns = 4  # counted again only when the retry is spent
            self.retry(job)
        else:
            job.status, job.available, job.timeout = "pending", self.now, self.now + QUEUE

    def retry(self, job: Job) -> None:
        if job.retries == job.max_retries:
            self.finish(job, "failed")
            return
        job.status, job.returns = "pending", 0
        self.wait(job, self.now + BACKOFF[min(job.retries, 3)])
        job.retries += 1

    def wait(self, job: Job, until: float) -> None:
        job.queued = job.available = until
        job.timeout = until + QUEUE

    def finish(self, job: Job, status: str) -> None:
        job.status = status
        job.outcomes += 1
