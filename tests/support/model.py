"""What the contract (§§2, 3) says becomes of a job: the model that tests/system/test_model.py holds the service to.

Moments are seconds; a job ages by hundreds, far more than a test takes. A call is (key, its token's attempt or None).
"""

from tests.support.model_around import FINAL, Around, Outcome

ACK, TIMEOUT, QUEUE, LEASE, SOON = 100, 1000, 5000, 300, 500
BACKOFF = (100, 200, 400, 400)  # base=100,factor=2,max=400,jitter=0
CLOCKS = {  # in the order of their precedence
    "dead key": lambda job, now, dead_key: job.lease and job.worker[0] == dead_key,
    "unacknowledged": lambda job, now, _: job.lease and not job.acknowledged and job.lease <= now,
    "timeout": lambda job, now, _: job.lease and job.acknowledged and job.timeout <= now,
    "lease_expired": lambda job, now, _: job.lease and job.acknowledged and job.lease <= now,
    "queue": lambda job, now, _: job.status == "pending" and job.timeout <= now,
}


class Job:
    status, leased, acknowledged = "pending", False, False
    worker = claim_id = lease = end = progress = None
    attempt = retries = returns = ended = done = forgiven = 0  # forgiven: attempts before an operator's retry

    def __init__(self, kind, max_retries, rank):
        self.kind, self.max_retries, self.rank = kind, max_retries, rank
        self.ends, self.accepted = [], {}  # (worker, how) of each attempt; attempt → (key, its accepted result)
        self.outcomes = []

    def age(self, seconds):
        for clock in ("queued", "available", "timeout", "ended", "done", *(["lease"] if self.lease else [])):
            setattr(self, clock, getattr(self, clock) - seconds)

    def held_by(self, call):
        return call[0] == self.worker[0] and call[1] in (self.attempt, self.attempt if self.leased else None)


class Model(Around):  # all jobs, and the verbs; each returns what the service is to answer
    def __init__(self):
        self.jobs, self.keys, self.now = {}, {}, 0.0  # keys: Idempotency-Key → (what was asked for, its jobs)

    def create(self, ids, kind, max_retries, rank, later):
        for job_id in ids:
            self.wait(self.jobs.setdefault(job_id, Job(kind, max_retries, rank)), SOON if later else self.now)

    def claimable(self, job):
        return job.status == "pending" and job.available <= self.now < job.timeout

    def next(self, kind):
        waiting = [(job.rank, job.queued, name) for name, job in self.jobs.items() if self.claimable(job)]
        return [name for *_, name in sorted(waiting) if self.jobs[name].kind == kind]

    def claim(self, offered, worker, leased, claim_id):
        unseen = {name: job for name, job in self.jobs.items() if job.status == "processing" and not job.acknowledged}
        given = {name for name, job in unseen.items() if claim_id and (job.worker, job.claim_id) == (worker, claim_id)}
        for name in [] if given else offered:
            job = self.jobs[name]
            if self.claimable(job) and ((job.end, job.worker) != ("released", worker) or job.ended <= self.now - 10):
                job.status, job.attempt, job.worker, job.claim_id = "processing", job.attempt + 1, worker, claim_id
                job.leased, job.acknowledged, job.end, job.progress = leased, False, None, None
                job.lease, job.timeout = self.now + ACK, self.now + TIMEOUT
                given.add(name)
        return given

    def heartbeat(self, job, call, progress):
        if not job.held_by(call) or job.status != "processing":
            return "cancelled" if job.held_by(call) and job.status == job.end == "cancelled" else "lease_lost"
        span = LEASE if job.leased else TIMEOUT
        if progress or not job.acknowledged or job.lease < min(self.now + span * 2 / 3, job.timeout):
            job.lease = min(self.now + span, job.timeout)
        job.acknowledged, job.progress = True, progress or job.progress
        return "processing"

    def result(self, job, call, *said):
        late = job.status == "pending" and job.end in ("lease_expired", "unacknowledged")
        shared = any(worker[0] == call[0] and worker != job.worker for worker, _ in job.ends)
        holds = job.held_by(call) and (said[0] or call[1] is not None or not shared)
        if not holds or not (job.status == "processing" or late):
            if any((call[0], said) == before and call[1] in (None, n) for n, before in job.accepted.items()):
                return job.status
            return "already_finished" if job.status in FINAL else "not_processing" if holds else "lease_lost"
        job.accepted[job.attempt] = call[0], said
        self.end(job, "completed" if said[0] else "failed")
        if said[0] or not said[1]:  # success, or not retryable
            self.finish(job, job.end)
        elif not late:
            self.retry(job)
        return job.status

    def release(self, job, call):
        if job.held_by(call) and job.status == "processing":
            self.give_back(job, "released")
            return job.status
        return "pending" if job.held_by(call) and (job.status, job.end) == ("pending", "released") else "lease_lost"

    def cancel(self, job):
        if job.status == "processing":
            self.end(job, "cancelled")
        if job.status not in FINAL:
            self.finish(job, "cancelled")
        return "cancelled" if job.status == "cancelled" else "already_finished"

    def restart(self, job):
        if job.status in FINAL - {"completed"}:
            job.retries, job.returns, job.end, job.progress, job.forgiven = 0, 0, None, None, job.attempt
            self.wait(job, self.now)
        return {"completed": "already_finished", "processing": "not_ready"}.get(job.status, "pending")

    def expire(self, dead_key=None):
        for clock, runs_out in CLOCKS.items():
            self.now += 0.001
            for job in [job for job in self.jobs.values() if runs_out(job, self.now, dead_key)]:
                if clock in ("timeout", "lease_expired"):
                    self.end(job, clock)
                if clock in ("timeout", "queue"):
                    self.finish(job, "timeout")
                elif clock == "lease_expired":
                    self.retry(job)
                else:
                    self.give_back(job, "released" if clock == "dead key" else clock, counted=clock != "dead key")

    def end(self, job, how):
        if job.status == "processing":  # else it is a late result, which changes how the attempt ended
            job.ends.append(None)
            job.ended, job.lease = self.now, None
        job.end, job.ends[-1] = how, (job.worker, how)

    def give_back(self, job, how, counted=True):
        self.end(job, how)
        if counted and job.returns == 4:
            self.retry(job)
        else:
            job.status, job.returns, job.mirrored = "pending", job.returns + counted, True
            job.available, job.timeout = self.now, self.now + QUEUE

    def retry(self, job):
        losers = {worker for worker, how in job.ends[job.forgiven :] if how == "lease_expired"}
        if job.retries == job.max_retries or len(losers) == 3:
            self.finish(job, "failed")
        else:
            self.wait(job, self.now + BACKOFF[min(job.retries, 3)])
            job.returns, job.retries = 0, job.retries + 1

    def wait(self, job, until):
        job.status, job.queued, job.available, job.timeout = "pending", until, until, until + QUEUE
        job.mirrored = until <= self.now

    def finish(self, job, status):
        job.status, job.mirrored, job.done = status, False, self.now
        job.outcomes.append(Outcome(self.now))
