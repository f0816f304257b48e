"""The model of what goes with a job beside its states (tests/support/model.py): Idempotency-Key, outcomes, purge."""

FINAL = {"completed", "failed", "timeout", "cancelled"}
RETENTION, UNTOLD, CONFIRM, LONGEST, MOST_PATIENCE = 86400, 30, 200, 300, 3600
# UNTOLD: what was taken and did not come back is taken again; MOST_PATIENCE: the longest wait for a confirmation


class Outcome:  # of a terminal state, for the pipeline
    tries, sent, confirmed = 0, False, False

    def __init__(self, now):
        self.due = now  # None: handed over

    @property
    def state(self):
        if self.due is None:
            return "confirmed" if self.confirmed else "sent"
        return "waiting" if self.tries < 5 else "failing"

    def age(self, seconds):
        self.due = None if self.due is None else self.due - seconds

    def is_due(self, now):
        return self.due is not None and self.due <= now

    def try_once(self, now, broker, again):  # again: seconds until it is sent again, where nobody confirms
        taken = broker in ("takes", "confirms")
        self.tries = self.tries + 1 if self.sent or not taken else 1
        self.sent, self.confirmed = self.sent or taken, broker == "confirms"
        again = again and min(MOST_PATIENCE, again * 2 ** (self.tries - 1))
        delay = {"takes": again, "refuses": min(LONGEST, 2**self.tries), "dies": UNTOLD, "confirms": None}[broker]
        self.due = None if delay is None else now + delay


class Around:
    def replayed(self, key, asked):
        before, ids = self.keys.get(key, (asked, None))
        return ids if asked == before else "idempotency_mismatch"

    def outcomes(self):
        return {(name, n): each for name, job in self.jobs.items() for n, each in enumerate(job.outcomes, 1)}

    def hand_over(self, broker, again):
        due = {which: outcome for which, outcome in self.outcomes().items() if outcome.is_due(self.now)}
        for outcome in due.values():
            outcome.try_once(self.now, broker, again)
        return set(due) if broker in ("takes", "confirms") else set()

    def confirm(self, which):
        outcome = self.outcomes()[which]
        outcome.due, outcome.confirmed = None, True

    def resend(self, which):
        outcome = self.outcomes()[which]
        outcome.due, outcome.tries, outcome.sent, outcome.confirmed = self.now, 0, False, False

    def purge(self):
        old = {name for name, job in self.jobs.items() if job.status in FINAL and job.done < self.now - RETENTION}
        gone = {name for name in old if all(outcome.due is None for outcome in self.jobs[name].outcomes)}
        self.jobs = {name: job for name, job in self.jobs.items() if name not in gone}
        self.keys = {key: (asked, ids) for key, (asked, ids) in self.keys.items() if self.jobs.keys() & ids}
        return gone
