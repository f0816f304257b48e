"""Invariants of what becomes of a job: one result, a legal way, one effect of each outcome, the same text each time."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from models.job_state import FINAL
from tests.chaos.end_state import EndState, Job
from tests.chaos.history import Call, History, Outcome, Violation


def one_result(history: History, end: EndState) -> Iterator[Violation]:
    """Check that an accepted success is the job's result, and the only one."""
    accepted: dict[str, Call] = {}
    for call in history.of("result"):
        if not call.ok or call.content is None:
            continue
        first = accepted.setdefault(call.job_id or "", call)
        if first.content != call.content:
            yield Violation(f"two results of job {call.job_id} were accepted", (first, call))
        job = end.jobs.get(call.job_id or "")
        if job is not None and (job.status, job.content) != ("completed", call.content):
            yield Violation(
                f"an accepted result of job {call.job_id} is not kept: {job.status}, {job.content}", (call,)
            )
    for call in history.of("read"):
        job = end.jobs.get(call.job_id or "")
        if call.ok and job is not None and call.content != job.content:
            yield Violation(f"job {call.job_id} was read with another text than it has", (call,))
    for job in end.jobs.values():
        completed = sum(one.how == "completed" for one in job.attempts)
        if completed != (job.status == "completed"):
            yield Violation(f"job {job.job_id} is {job.status}, {completed} attempts completed it", tuple(job.attempts))


def legal_paths(history: History, end: EndState) -> Iterator[Violation]:
    """States follow one another as the state machine has it, for clients in real time and in what is recorded."""
    seen: dict[str, list[Call]] = defaultdict(list)
    asked: dict[str, list[Call]] = defaultdict(list)
    cancelled_many = {call.tenant for call in history.of("cancel many")}
    for call in history.calls:
        if call.job_id is not None and call.state is not None and call.ended is not None:
            seen[call.job_id].append(call)
        if call.what in ("retry", "cancel") and call.outcome != Outcome.REFUSED:
            asked[call.job_id or ""].append(call)
    for job_id, calls in seen.items():
        restarts = [call for call in asked[job_id] if call.what == "retry"]
        yield from _resurrected(job_id, calls, restarts)
    for job in end.jobs.values():
        restarts = [call for call in asked[job.job_id] if call.what == "retry"]
        cancels = [call for call in asked[job.job_id] if call.what == "cancel"]
        yield from _recorded(job, restarts, bool(cancels) or job.tenant in cancelled_many)


def _resurrected(job_id: str, calls: list[Call], restarts: list[Call]) -> Iterator[Violation]:
    """Report a state that is final and was left, as clients saw it."""
    finals = [call for call in calls if call.state in FINAL]
    if not finals:
        return
    first = min(finals, key=lambda call: call.ended or 0)
    completed = [call for call in finals if call.state == "completed"]
    done = min(completed, key=lambda call: call.ended or 0) if completed else None
    for call in calls:
        if done is not None and call.state != "completed" and call.began > (done.ended or 0):
            yield Violation(f"job {job_id} was completed, and then {call.state}", (done, call))
        went_on = call.state not in FINAL and call.began > (first.ended or 0)
        if went_on and not any(retry.began < (call.ended or 0) for retry in restarts):
            yield Violation(f"job {job_id} was {first.state}, and then {call.state} without a retry", (first, call))


def _recorded(job: Job, restarts: list[Call], cancelled: bool) -> Iterator[Violation]:
    """Check that the recorded history of a job is a possible one."""
    ends = [told.status for told in job.told]
    if [told.n for told in job.told] != list(range(1, job.outcome_count + 1)):
        yield Violation(f"job {job.job_id} ended {job.outcome_count} times and has outcomes {job.told}")
    if "completed" in ends[:-1]:
        yield Violation(f"job {job.job_id} ended as completed, and again: {ends}")
    if job.status in FINAL and ends[-1:] != [job.status]:
        yield Violation(f"job {job.job_id} is {job.status}, its last outcome says {ends[-1:]}")
    needed = job.outcome_count - (job.status in FINAL)
    if needed > len(restarts):
        yield Violation(f"job {job.job_id} went on {needed} times after its end: {len(restarts)} retries", (*restarts,))
    if "cancelled" in ends and not cancelled:
        yield Violation(f"job {job.job_id} was cancelled by nobody")
    if not 0 <= job.retry_count <= job.max_retries:
        yield Violation(f"job {job.job_id} spent {job.retry_count} of {job.max_retries} retries")
    if "completed" in [one.how for one in job.attempts[:-1]]:
        yield Violation(f"job {job.job_id} was claimed after it was completed", tuple(job.attempts))


def exactly_once_effect(history: History, end: EndState) -> Iterator[Violation]:
    """Every outcome had one effect in the pipeline, of its status and text, and is confirmed; nothing else had one."""
    effects = Counter((one.job_id, one.n) for one in end.effects)
    made = {(one.job_id, one.n): one for one in end.effects}
    told = {(job.job_id, one.n): (job, one) for job in end.jobs.values() for one in job.told}
    for place, (job, one) in told.items():
        if effects[place] != 1:
            yield Violation(f"outcome {place} ({one.status}) had {effects[place]} effects", (one,))
            continue
        text = job.content if one.status == "completed" else None
        if (made[place].status, made[place].content) != (one.status, text):
            yield Violation(f"outcome {place} had an effect with other contents", (one, made[place]))
        if one.confirmed is None:
            yield Violation(f"outcome {place} was never confirmed", (one,))
    for place, effect in made.items():
        if place not in told:
            yield Violation(f"an effect of an outcome that is not recorded: {place}", (effect,))


def same_text(history: History, end: EndState) -> Iterator[Violation]:
    """Every delivery of an outcome has the same status and the same text."""
    first: dict[tuple[str, int], object] = {}
    for one in end.deliveries:
        if first.setdefault((one.job_id, one.n), one) != one:
            yield Violation("an outcome was delivered with different contents", (first[one.job_id, one.n], one))
