"""Invariants of what was created: nothing that was acknowledged is lost, nothing is made up, nobody sees others'."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.end_state import EndState
from tests.chaos.handler import content as of_process
from tests.chaos.history import Call, History, Violation


def conservation(history: History, end: EndState) -> Iterator[Violation]:
    """Every acknowledged create is there, under its key; a key has one answer; a batch is there whole or not at all."""
    answers: dict[tuple[str, str], Call] = {}
    for call in history.of("create", "batch", "send"):
        mine = (call.tenant, call.key or "")
        if not call.ok:
            there = end.batches.get(mine)
            if call.what == "batch" and there is not None and len(there) != call.count:
                yield Violation(f"batch {mine} is there in part: {len(there)} of {call.count}", (call,))
            continue
        first = answers.setdefault(mine, call)
        if first.job_ids != call.job_ids:
            yield Violation(f"key {mine} was answered with different jobs", (first, call))
        if len(call.job_ids) != call.count:
            yield Violation(f"{call.count} jobs were asked for, {len(call.job_ids)} were acknowledged", (call,))
        if lost := [job_id for job_id in call.job_ids if job_id not in end.jobs]:
            yield Violation(f"acknowledged and lost: {lost}", (call,))
        elif call.what == "batch" and end.batches.get(mine) != call.job_ids:
            yield Violation(f"batch {mine} is not what was acknowledged: {end.batches.get(mine)}", (call,))
        elif call.what != "batch" and end.jobs[call.job_ids[0]].key != call.key:
            yield Violation(f"key {mine} was acknowledged for a job of key {end.jobs[call.job_ids[0]].key}", (call,))
    by_key: dict[tuple[str, str], list[str]] = defaultdict(list)
    for job in end.jobs.values():
        if job.key is not None:
            by_key[job.tenant, job.key].append(job.job_id)
    for key, jobs in by_key.items():
        if len(jobs) > 1:
            yield Violation(f"key {key} has {len(jobs)} jobs: {jobs}")


def no_invention(history: History, end: EndState) -> Iterator[Violation]:
    """No job that nobody asked for, no claim or delivery of an unknown job, no text that nobody sent for it."""
    asked = {(call.tenant, call.key) for call in history.of("create", "send")}
    batches = {(call.tenant, call.key) for call in history.of("batch")}
    in_batches = {job_id for key, jobs in end.batches.items() if key in batches for job_id in jobs}
    sent: dict[str, set[str]] = defaultdict(set)
    for call in history.of("result"):
        if call.content is not None:
            sent[call.job_id or ""].add(call.content)
    for job in end.jobs.values():
        if (job.tenant, job.key) not in asked and job.job_id not in in_batches:
            yield Violation(f"job {job.job_id} of key {job.key} was created by nobody")
        by_process = job.tenant == end.process_tenant and any(
            job.content == of_process(job.job_id, one.attempt) for one in job.attempts
        )
        if job.content is not None and job.content not in sent[job.job_id] and not by_process:
            yield Violation(f"job {job.job_id} holds a text that nobody sent for it: {job.content[:100]}")
    for call in history.of("poll"):
        if made_up := [given.job_id for given in call.given if given.job_id not in end.jobs]:
            yield Violation(f"jobs that do not exist were handed out: {made_up}", (call,))
    for kind, made in (("delivery", end.deliveries), ("effect", end.effects)):
        for one in made:
            if one.job_id not in end.jobs:
                yield Violation(f"a {kind} of a job that does not exist", (one,))


def isolation(history: History, end: EndState) -> Iterator[Violation]:
    """Each client gets jobs of its tenant and content types only, and the answer to its own request."""
    for call in history.calls:
        if call.status is not None and not call.echoed:
            yield Violation("an answer without the X-Request-ID of its request", (call,))
        if not call.ok:
            continue
        for job_id in {*call.job_ids, *(given.job_id for given in call.given), call.job_id} - {None}:
            job = end.jobs.get(str(job_id))
            if job is not None and job.tenant != call.tenant:
                yield Violation(f"a job of tenant {job.tenant} was shown to {call.tenant}", (call,))
        for given in call.given:
            job = end.jobs.get(given.job_id)
            if job is not None and (
                job.content_type not in call.content_types or given.content_type != job.content_type
            ):
                yield Violation(f"a job of type {job.content_type} was handed to who asks for others", (call,))
