"""The history checker itself: a good history passes, and one that breaks an invariant is caught by that invariant."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.checker import INVARIANTS, check
from tests.chaos.end_state import Attempt, Delivery, EndState, Job, Told
from tests.chaos.handler import content as of_process
from tests.chaos.history import ROUTES, Call, Given, History, Outcome
from tests.chaos.recovery import LIMITS

DECLARED = {route: frozenset({200, 401, 403, 404, 409, 422, 429, 503}) for route in ROUTES.values()}
TYPES = frozenset({"audio", "video"})


class Evidence:
    """A good history and its end state.

    Job `one` was done at once; `two` lost a lease, then was done; `three` was cancelled, put back and failed; `four`
    came over Celery and was done by a process that records nothing.
    """

    def __init__(self) -> None:
        self.history, self.end = History(), EndState(declared=dict(DECLARED), process_tenant="p")
        self.end.batches["t", "b"] = ("two", "three")
        self.call("create", 0.0, key="k", job_ids=("one",))
        self.call("batch", 0.0, key="b", count=2, job_ids=("two", "three"))
        self.call("send", 0.0, tenant="p", key="c", status=None, job_ids=("four",))
        self.done("one", 1, "w1", 1.0, "text 1")
        self.lost = self.claim("two", 1, "w1", 1.0)
        self.call("heartbeat", 2.0, job_id="two", attempt=1, worker="w1", state="processing", lease_ends=12.0)
        self.done("two", 2, "w2", 15.0, "text 2")
        self.call("cancel", 1.0, job_id="three", state="cancelled")
        self.call("retry", 3.0, job_id="three", state="pending")
        self.claim("three", 1, "w2", 4.0)
        self.call("result", 5.0, job_id="three", attempt=1, state="failed", worker="w2")
        self.call("status", 6.0, job_id="three", state="failed")
        self.job("one", "completed", "text 1", (1.0, 2.5, "completed"), key="k")
        self.job("two", "completed", "text 2", (1.0, 13.0, "lease_expired"), (15.0, 16.5, "completed"))
        self.job("three", "failed", None, (4.0, 5.5, "failed"), told=("cancelled", "failed"))
        self.job("four", "completed", of_process("four", 1), (1.0, 2.0, "completed"), key="c", tenant="p")
        self.end.claimable = {("t", "audio", "five")}
        self.end.mirrored["t", "audio", "five"] = 1
        self.end.claimed = {"bridge:{t:audio}:claimed:p1": 0}
        self.end.counted["t", "audio", "completed"] = self.end.kept["t", "audio", "completed"] = 2
        self.end.gauges["audio", "pending"] = self.end.resting["audio", "pending"] = 1
        self.end.left = {"messages in bridge": 0}

    def call(self, what: str, began: float, **said: object) -> Call:
        given = {"who": "client", "tenant": "t", "ended": began + 0.5, "outcome": Outcome.OK, "status": 200, **said}
        self.history.calls.append(Call(what=what, began=began, **given))  # type: ignore[arg-type]
        return self.history.calls[-1]

    def claim(self, job_id: str, attempt: int, worker: str, began: float, **said: object) -> Call:
        given = (Given(job_id, attempt, f"{job_id}-{attempt}", "audio"),)
        return self.call("poll", began, worker=worker, given=given, content_types=TYPES, **said)

    def done(self, job_id: str, attempt: int, worker: str, began: float, content: str) -> None:
        self.claim(job_id, attempt, worker, began)
        said = {"job_id": job_id, "attempt": attempt, "worker": worker, "content": content, "state": "completed"}
        self.call("result", began + 1, **said)

    def job(
        self, job_id: str, status: str, content: str | None, *ends: tuple[float, float, str],
        key: str | None = None, tenant: str = "t", told: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        attempts = [Attempt(n, "w", f"{job_id}-{n}", claimed, True, ended, how)
                    for n, (claimed, ended, how) in enumerate(ends, 1)]  # fmt: skip
        outcomes = [Told(n, how, 20.0, 21.0) for n, how in enumerate(told or (status,), 1)]
        self.end.jobs[job_id] = Job(job_id, tenant, "audio", status, key, len(attempts), 0, 3, len(outcomes), content,
                                    0.0, attempts, outcomes)  # fmt: skip
        for one in outcomes:
            delivery = Delivery(job_id, one.n, one.status, content if one.status == "completed" else None)
            self.end.deliveries += [delivery, delivery]
            self.end.effects.append(delivery)

    def attempt(self, job_id: str, n: int, **changes: object) -> "Evidence":
        """Change what PostgreSQL has of an attempt."""
        attempts = self.end.jobs[job_id].attempts
        attempts[n - 1] = replace(attempts[n - 1], **changes)  # type: ignore[arg-type]
        return self

    def of(self, what: str) -> Call:
        return self.history.of(what)[0]

    def unanswered(self, what: str) -> "Evidence":
        """Return the history with the outcome of the first such call unknown."""
        self.of(what).outcome = Outcome.UNKNOWN
        return self

    def fault(self, kind: str, ended: float) -> "Evidence":
        self.history.trouble(kind).ended = ended
        return self


Break = Callable[[Evidence], object]


def told(job: Job, n: int, **changes: object) -> None:
    job.told[n - 1] = replace(job.told[n - 1], **changes)  # type: ignore[arg-type]


def by_the_first_holder(what: str) -> Break:
    """Return a call that is answered with success after another worker has claimed the job."""
    return lambda e: e.call(what, 16.0, job_id="two", attempt=1, worker="w1", state="processing")


#: Invariant → what breaks it, each in a history that is good otherwise.
BROKEN: dict[str, dict[str, Break]] = {
    "conservation": {
        "an acknowledged job is gone": lambda e: e.call("create", 9, key="k9", job_ids=("gone",)),
        "an acknowledged job over Celery is gone": lambda e: e.call("send", 9, key="c9", job_ids=("gone",)),
        "the same key got another job": lambda e: e.call("create", 9, key="k", job_ids=("two",)),
        "the job is under another key": lambda e: setattr(e.end.jobs["one"], "key", "other"),
        "a batch is there in part": lambda e: e.unanswered("batch").end.batches.update({("t", "b"): ("two",)}),
        "a batch was acknowledged in part": lambda e: setattr(e.of("batch"), "count", 3),
        "a key has two jobs": lambda e: e.job("again", "failed", None, key="k"),
    },
    "no invention": {
        "a job nobody asked for": lambda e: e.job("ghost", "failed", None, key="nobody's"),
        "a job without a key nor a batch": lambda e: e.job("ghost", "failed", None),
        "a claim of no job": lambda e: e.claim("ghost", 1, "w1", 9.0),
        "a text nobody sent": lambda e: setattr(e.end.jobs["one"], "content", "forged"),
        "a text of another attempt's process": lambda e: setattr(e.end.jobs["four"], "content", of_process("four", 2)),
        "a delivery of no job": lambda e: e.end.deliveries.append(Delivery("ghost", 1, "failed", None)),
    },
    "isolation": {
        "a job of another tenant is claimed": lambda e: setattr(e.of("poll"), "tenant", "other"),
        "a job of another tenant is read": lambda e: e.call("status", 9, tenant="other", job_id="one"),
        "a type that was not asked for": lambda e: setattr(e.of("poll"), "content_types", frozenset({"video"})),
        "the answer to another request": lambda e: setattr(e.of("status"), "echoed", False),
    },
    "disjoint leases": {
        "two hold it at once": lambda e: e.attempt("two", 1, ended=15.5),
        "an attempt is missing": lambda e: e.end.jobs["two"].attempts.pop(0),
        "an attempt has not ended and another has begun": lambda e: e.attempt("two", 1, ended=None, how=None),
        "one attempt for two workers": lambda e: e.claim("one", 1, "w2", 1.2),
        "a claim that was never recorded": lambda e: e.claim("one", 2, "w2", 1.2),
        "a token twice": lambda e: e.attempt("two", 2, token="two-1"),
    },
    "fencing": {what: by_the_first_holder(what) for what in ("heartbeat", "result", "release", "download")},
    "leases kept": {
        "it ended before the moment that its holder was told": lambda e: e.attempt("two", 1, ended=11.0),
        "an acknowledged claim was taken for unacknowledged": lambda e: e.attempt("two", 1, how="unacknowledged"),
        "no time to acknowledge": lambda e: e.attempt(
            "two", 1, how="unacknowledged", acknowledged=False, ended=1.5).history.calls.remove(e.of("heartbeat")),
    },
    "one result": {
        "two were accepted": lambda e: e.call("result", 9, job_id="one", attempt=1, content="text 9", worker="w1"),
        "another one is kept": lambda e: setattr(e.end.jobs["one"], "content", "text 2"),
        "the accepted one is not": lambda e: setattr(e.end.jobs["one"], "status", "failed"),
        "another one is read": lambda e: e.call("read", 9, job_id="one", content="text 2"),
        "no attempt completed it": lambda e: e.attempt("one", 1, how="failed"),
    },
    "legal paths": {
        "completed and pending": lambda e: e.call("status", 9, job_id="one", state="pending"),
        "failed and pending without a retry": lambda e: e.history.calls.remove(e.of("retry")),
        "completed and failed": lambda e: told(e.end.jobs["three"], 1, status="completed"),
        "cancelled by nobody": lambda e: e.history.calls.remove(e.of("cancel")),
        "an outcome is missing": lambda e: e.end.jobs["three"].told.pop(0),
        "the last outcome says something else": lambda e: told(e.end.jobs["three"], 2, status="timeout"),
        "more retries than there are": lambda e: setattr(e.end.jobs["one"], "retry_count", 4),
        "claimed after it was completed": lambda e: e.attempt("two", 1, how="completed"),
    },
    "exactly-once effect": {
        "no effect": lambda e: e.end.effects.pop(),
        "two effects": lambda e: e.end.effects.append(e.end.effects[0]),
        "another text": lambda e: e.end.effects.append(replace(e.end.effects.pop(0), content="text 2")),
        "an effect of no outcome": lambda e: e.end.effects.append(Delivery("one", 2, "failed", None)),
        "never confirmed": lambda e: told(e.end.jobs["one"], 1, confirmed=None),
    },
    "same text": {
        "another text": lambda e: e.end.deliveries.append(Delivery("one", 1, "completed", "text 2")),
        "another status": lambda e: e.end.deliveries.append(Delivery("three", 2, "timeout", None)),
    },
    "bounds": {
        "a lease": lambda e: e.attempt("two", 1, ended=13 + LIMITS["lease ran out → pending"]).attempt(
            "two", 2, claimed=200.0, ended=201.0),
        "an outcome": lambda e: told(e.end.jobs["one"], 1, confirmed=21 + LIMITS["outcome → confirmed"]),
        "an outcome that was lost seven times": lambda e: told(e.end.jobs["one"], 1, confirmed=600.0, sendings=8),
        "a poll": lambda e: setattr(e.of("poll"), "ended", 2 + LIMITS["poll's wait → its answer"]),
        "after a fault of Redis": lambda e: (
            e.fault("FLUSHALL", 15.6), e.call("poll", 16.0, worker="w1"), e.claim("one", 1, "w1", 200.0)),
        "after a fault of PostgreSQL": lambda e: (
            e.fault("restart PostgreSQL", 1.0), e.call("create", 2.0, key="k", outcome=Outcome.UNKNOWN, status=None),
            e.call("create", 200.0, key="k", job_ids=("one",))),
    },
    "liveness": {
        "a job for ever pending": lambda e: setattr(e.end.jobs["three"], "status", "pending"),
        "a create without an answer": lambda e: e.call("create", 9, key="k9", outcome=Outcome.UNKNOWN, status=None),
        "a Celery create without an answer": lambda e: e.call("send", 9, key="c9", outcome=Outcome.UNKNOWN),
        "a client hangs": lambda e: e.call("poll", 9, ended=None, outcome=Outcome.UNKNOWN, status=None),
    },
    "mirror equality": {
        "a job is missing": lambda e: e.end.mirrored.clear(),
        "one too many": lambda e: e.end.mirrored.update([("t", "audio", "six")]),
        "one twice": lambda e: e.end.mirrored.update([("t", "audio", "five")]),
        "one in a claimed list": lambda e: e.end.claimed.update({"bridge:{t:audio}:claimed:p1": 1}),
    },
    "counters": {
        "too few": lambda e: e.end.kept.subtract([("t", "audio", "completed")]),
        "of what is not there": lambda e: e.end.kept.update([("t", "web", "failed")]),
        "a gauge": lambda e: e.end.gauges.clear(),
    },
    "only declared answers": {
        "500": lambda e: e.call("poll", 9, status=500, outcome=Outcome.UNKNOWN),
        "502, declared or not": lambda e: (
            e.end.declared.update({ROUTES["poll"]: frozenset({200, 502})}),
            e.call("poll", 9, status=502, outcome=Outcome.UNKNOWN)),
        "not declared for this route": lambda e: e.call("poll", 9, status=206),
        "503 without Retry-After": lambda e: e.call("poll", 9, status=503, outcome=Outcome.UNKNOWN),
        "401 for a good key": lambda e: e.call("poll", 9, status=401, outcome=Outcome.REFUSED),
        "409 that was not provoked": lambda e: e.call("status", 9, status=409, outcome=Outcome.REFUSED),
        "a refused intake": lambda e: e.call("send", 9, key="c9", status=500, outcome=Outcome.REFUSED),
    },
    "nothing left behind": {"a message": lambda e: e.end.left.update({"messages in bridge": 1})},
}  # fmt: skip
CASES = [(name, what) for name, cases in BROKEN.items() for what in cases]


def test_every_invariant_has_a_history_that_breaks_it():
    assert set(BROKEN) == set(INVARIANTS)
    assert all(BROKEN.values())


def test_a_good_history_passes():
    evidence = Evidence()
    assert [str(one) for one in check(evidence.history, evidence.end)] == []


@pytest.mark.parametrize(("invariant", "what"), CASES, ids=[f"{name}: {what}" for name, what in CASES])
def test_a_history_that_breaks_an_invariant_is_caught_by_it(invariant, what):
    evidence = Evidence()
    BROKEN[invariant][what](evidence)
    found = [str(one) for one in INVARIANTS[invariant](evidence.history, evidence.end)]
    assert found, what
    assert set(found) <= {str(one).removeprefix(f"{invariant}: ") for one in check(evidence.history, evidence.end)}


def test_what_is_right_although_it_looks_wrong_passes():
    """A result sent before the next claim was seen and repeated after it, a late refusal, a 503 in time, and an outcome
    that was lost seven times."""
    evidence = Evidence()
    said = {"job_id": "two", "attempt": 1, "worker": "w1"}
    evidence.call("result", 14.0, outcome=Outcome.UNKNOWN, status=None, **said)
    evidence.call("result", 18.0, state="completed", **said)
    evidence.call("heartbeat", 18.0, status=409, outcome=Outcome.REFUSED, expects=frozenset({409}), **said)
    evidence.call("poll", 19.0, status=503, outcome=Outcome.UNKNOWN, retry_after=True)
    evidence.call("create", 19.0, key="k", status=503, outcome=Outcome.UNKNOWN, retry_after=True)
    told(evidence.end.jobs["one"], 1, confirmed=400.0, sendings=8)
    assert [str(one) for one in check(evidence.history, evidence.end)] == []
