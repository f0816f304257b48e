"""Invariants of claims: one holder at a time, and nobody is heard who was followed by another."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.end_state import EndState
from tests.chaos.history import Call, History, Violation

ACCEPTING = ("heartbeat", "result", "release", "download")  # calls that speak for a claim
CLOCK_SECONDS = 0.05  # by which two readings of one clock may differ


def disjoint_leases(history: History, end: EndState) -> Iterator[Violation]:
    """Check that a job's attempts are 1, 2, 3 … without gap or overlap, each with its own token and holder.

    By what PostgreSQL has, and by what the polls were answered.
    """
    for job in end.jobs.values():
        numbers = [one.attempt for one in job.attempts]
        if numbers != list(range(1, job.attempt + 1)):
            yield Violation(f"job {job.job_id} is at attempt {job.attempt} and has attempts {numbers}")
        for before, after in pairwise(job.attempts):
            if before.ended is None or before.ended > after.claimed:
                yield Violation(f"job {job.job_id}: two attempts were held at once", (before, after))
        if len({one.token for one in job.attempts}) < len(job.attempts):
            yield Violation(f"job {job.job_id}: two claims have one token", tuple(job.attempts))
    held: dict[tuple[str, int], tuple[str, str | None, Call]] = {}
    tokens = {(job.job_id, one.attempt): one.token for job in end.jobs.values() for one in job.attempts}
    for call in history.of("poll"):
        for given in call.given:
            claim = (given.job_id, given.attempt)
            token, worker, first = held.setdefault(claim, (given.token, call.worker, call))
            if (token, worker) != (given.token, call.worker):
                yield Violation(f"attempt {claim} was handed out twice", (first, call))
            if given.job_id in end.jobs and tokens.get(claim) != given.token:
                yield Violation(f"attempt {claim} was handed out, and PostgreSQL knows of no such claim", (call,))


def fencing(history: History, end: EndState) -> Iterator[Violation]:
    """Who was told of a later attempt knows that nothing for an earlier one is accepted that began after that moment.

    A repetition of what was first sent before it may be answered as the first one was.
    """
    told: dict[str, list[tuple[float, int, Call]]] = defaultdict(list)
    for call in history.of("poll"):
        for given in call.given:
            if call.ended is not None:
                told[given.job_id].append((call.ended, given.attempt, call))
    first: dict[tuple[str, str | None, int | None, str | None], float] = {}
    for call in sorted(history.of(*ACCEPTING), key=lambda call: call.began):
        repeatable = call.what in ("result", "release")
        said = (call.what, call.job_id, call.attempt, call.content)
        began = first.setdefault(said, call.began) if repeatable else call.began
        if not call.ok or call.attempt is None:
            continue
        for ended, attempt, poll in told[call.job_id or ""]:
            if attempt > call.attempt and ended < began:
                yield Violation(f"{call.what} of attempt {call.attempt} was accepted after {attempt} was handed out",
                                (poll, call))  # fmt: skip
                break


def leases_kept(history: History, end: EndState) -> Iterator[Violation]:
    """No lease runs out before the moment that its holder was told, no claim before it could be acknowledged."""
    until: dict[tuple[str, int], Call] = {}
    for call in history.of("heartbeat"):
        if call.ok and call.lease_ends is not None and call.attempt is not None:
            claim = (call.job_id or "", call.attempt)
            if claim not in until or (until[claim].lease_ends or 0) < call.lease_ends:
                until[claim] = call
    for job in end.jobs.values():
        for one in job.attempts:
            if one.ended is None:
                continue
            alive = until.get((job.job_id, one.attempt))
            if one.how == "lease_expired" and alive and one.ended < (alive.lease_ends or 0) - CLOCK_SECONDS:
                yield Violation(f"job {job.job_id}: attempt {one.attempt} lost its lease before it ended", (alive, one))
            if one.how == "unacknowledged" and (
                one.acknowledged or alive or one.ended < one.claimed + end.ack_seconds - CLOCK_SECONDS
            ):
                yield Violation(f"job {job.job_id}: attempt {one.attempt} was taken for unacknowledged",
                                (*filter(None, [alive]), one))  # fmt: skip
