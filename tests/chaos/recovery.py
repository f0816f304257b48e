"""Invariants of time: what has broken is whole again within its bound, and everything ends."""

import bisect
from collections.abc import Iterator
from typing import NamedTuple

from models.job_state import FINAL
from tests.chaos.end_state import EndState, Told
from tests.chaos.history import Call, History, Trouble, Violation
from tests.chaos.system import SETTINGS

#: The longest that each recovery may take while one fault follows the other (seconds). What is promised of one fault
#: alone (docs/guarantees.md) says little of ten in a row, each of which may hit what heals the last: so at each start
#: of an API process, and each return of PostgreSQL, its stand-in for the clocks waits for another 30 s.
LIMITS = {
    "never acknowledged → pending": 120.0,
    "lease ran out → pending": 120.0,
    "outcome → confirmed": 300.0,
    "poll's wait → its answer": 15.0,
    "fault of Redis → next claim": 60.0,
    "fault of PostgreSQL → next create": 60.0,
}
#: After its k-th sending an outcome waits k times this long (docs/guarantees.md), its jitter included, and for a look.
STEP_SECONDS = 1.2 * float(SETTINGS["BRIDGE_CONTINUATION_CONFIRM_SECONDS"])
LOOK_SECONDS = 22.0
LAST_SECONDS = 60.0  # from its last sending to its confirmation: the pipeline's backlog, and a fault
REDIS = ("restart Redis", "FLUSHALL", "freeze Redis", "READONLY", "OOM", "NOREPLICAS", "Redis in a black hole")
POSTGRES = ("restart PostgreSQL", "kill all backends", "freeze PostgreSQL", "PostgreSQL in a black hole")


class Recovery(NamedTuple):
    """One recovery that was seen."""

    kind: str
    seconds: float
    event: object
    limit: float


def _seen(kind: str, seconds: float, event: object) -> Recovery:
    return Recovery(kind, seconds, event, LIMITS[kind])


def _confirmed(told: Told, job_id: str) -> Recovery:
    """Return how late an outcome may be that faults took from the pipeline repeatedly: as late as all its waits."""
    waits = sum(STEP_SECONDS * k + LOOK_SECONDS for k in range(1, told.sendings))
    limit = max(LIMITS["outcome → confirmed"], waits + LAST_SECONDS)
    return Recovery("outcome → confirmed", (told.confirmed or 0.0) - told.created, (job_id, told), limit)


def recoveries(history: History, end: EndState) -> Iterator[Recovery]:
    """Every one that the history and the end state tell of."""
    until: dict[tuple[str, int], Call] = {}
    for call in history.of("heartbeat"):
        if call.ok and call.lease_ends is not None and call.attempt is not None:
            until[call.job_id or "", call.attempt] = call
    for job in end.jobs.values():
        for one in job.attempts:
            if one.how == "unacknowledged" and one.ended is not None:
                late = one.ended - one.claimed - end.ack_seconds
                yield _seen("never acknowledged → pending", late, (job.job_id, one))
            if one.how == "lease_expired" and one.ended is not None and (job.job_id, one.attempt) in until:
                call = until[job.job_id, one.attempt]
                yield _seen("lease ran out → pending", one.ended - (call.lease_ends or 0), call)
        for told in job.told:
            if told.confirmed is not None:
                yield _confirmed(told, job.job_id)
    for call in history.of("poll"):
        if call.ok and call.ended is not None:
            yield _seen("poll's wait → its answer", call.ended - call.began - call.wait, call)
    polls, creates = history.of("poll"), history.of("create", "batch")
    for kinds, kind, asked, good in (
        (REDIS, "fault of Redis → next claim", polls, [call for call in polls if call.given]),
        (POSTGRES, "fault of PostgreSQL → next create", creates, [call for call in creates if call.ok]),
    ):
        began = sorted(call.began for call in asked)
        ended = sorted(call.ended for call in good if call.ended is not None)
        for trouble in history.troubles:
            if trouble.kind in kinds and trouble.ended is not None:
                yield from _next(trouble, kind, began, ended)


def _next(trouble: Trouble, kind: str, asked: list[float], good: list[float]) -> Iterator[Recovery]:
    """From the first request after a fault's end until one was served; none where nobody asked any more."""
    first = bisect.bisect(asked, trouble.ended or 0)
    if first < len(asked) and (then := bisect.bisect(good, asked[first])) < len(good):
        yield _seen(kind, good[then] - asked[first], trouble)


def worst(seen: Iterator[Recovery]) -> dict[str, float]:
    """Return the slowest of each kind."""
    slowest: dict[str, float] = {}
    for one in seen:
        slowest[one.kind] = max(one.seconds, slowest.get(one.kind, 0.0))
    return slowest


def bounds(history: History, end: EndState) -> Iterator[Violation]:
    """No recovery took longer than its bound."""
    for one in recoveries(history, end):
        if one.seconds > one.limit:
            yield Violation(f"{one.kind}: {one.seconds:.1f} s, more than {one.limit:.0f}", (one.event,))


def liveness(history: History, end: EndState) -> Iterator[Violation]:
    """Every job has ended, every create that was asked for is answered at last, no client hangs."""
    for job in end.jobs.values():
        if job.status not in FINAL:
            yield Violation(f"job {job.job_id} is {job.status} for ever", tuple(job.attempts[-1:]))
    last: dict[tuple[str, str | None], Call] = {}
    for call in history.of("create", "batch", "send"):
        if (call.tenant, call.key) not in last or call.ok:
            last[call.tenant, call.key] = call
    for key, call in last.items():
        if not call.ok:
            yield Violation(f"key {key} was never answered", (call,))
    for call in history.calls:
        if call.ended is None and call.what != "send":
            yield Violation("a client hangs", (call,))
