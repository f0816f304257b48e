"""The facts about a job as sentences that a person can act on. Pure: nothing here does I/O."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from bridge.insight.attention import counted
from bridge.insight.explain import MOST_AHEAD, Facts
from bridge.outbox.pipeline_queue import sentence
from bridge.outbox.undelivered import DUE_SECONDS
from bridge.queues import RANKS
from bridge.workers.roster import WorkerInfo
from models.job_state import FINAL, JobState, WebhookState

MOST_NAMED = 10  # workers, each in a separate sentence


class Clock(NamedTuple):
    """A clock that runs, and what happens when it runs out."""

    name: str
    ends_at: datetime
    then: str


def waits_for(facts: Facts) -> str | None:
    """Return what a pending job waits for, as one word; None if unknown or not pending."""
    job = facts.job
    if job.status != JobState.PENDING:
        return None
    if job.available_at > facts.now:
        return "backoff" if job.attempt_end is not None else "available_at"
    if not facts.active:
        return "worker" if facts.redis else None
    return "turn" if facts.jobs_ahead else "pickup"


def clocks(facts: Facts) -> list[Clock]:
    """Return the running clocks, the next to end first."""
    job = facts.job
    if job.status == JobState.PENDING:
        return [Clock("queue", job.timeout_at, "If no worker has claimed it by then, it goes to `timeout`.")]
    if job.status != JobState.PROCESSING:
        return []
    running = [Clock("deadline", job.timeout_at, "The attempt may not run longer; the job then goes to `timeout`.")]
    if job.acknowledged_at is None:
        running.append(Clock("acknowledgement", job.ack_by, "Without a sign of life by then it goes back to the head."))
    elif job.lease_seconds is not None:
        left = job.retry_count < job.max_retries
        then = "it goes back with a retry spent" if left else "it goes to `failed`, as no retry is left"
        running.append(Clock("lease", job.lease_expires_at, f"Unless its worker shows a sign of life, {then}."))
    return sorted(running, key=lambda clock: clock.ends_at)


def sentences(facts: Facts) -> list[str]:
    """Say where the job is, why, and what comes next."""
    status = JobState(facts.job.status)
    if status in FINAL:
        said = _ended(facts)
    elif status == JobState.PENDING:
        said = _pending(facts)
    else:
        said = _processing(facts)
    refused = [] if facts.source_refused is None else [f"Its source will not be fetched: {facts.source_refused}"]
    return [
        *said,
        *refused,
        *(f"The {clock.name} clock ends at {_at(clock.ends_at)}. {clock.then}" for clock in clocks(facts)),
    ]


def _pending(facts: Facts) -> Iterator[str]:
    job = facts.job
    raised = "" if job.asked_priority is None else f", raised from {RANKS[job.asked_priority]} by its age"
    yield f"It is pending: it waits in the queue `{job.content_type}` with priority {RANKS[job.priority]}{raised}."
    if job.available_at > facts.now:
        seconds = (job.available_at - facts.now).total_seconds()
        until = f"until {_at(job.available_at)}, in {seconds:.0f} s"
        if job.attempt_end is not None:
            yield f"It waits {until}, before retry {job.retry_count} of {job.max_retries} (the backoff)."
        else:
            yield f"It may not be claimed {until}, as its `available_at` asks."
    if facts.attempts:
        last = facts.attempts[0]
        ended = f"{last.how} at {_at(last.ended_at)}{_why(last.why)}"
        yield f"Attempt {last.attempt}, by worker {last.worker_id}, ended: {ended}"
    ahead = facts.jobs_ahead or 0
    more = "+" if ahead == MOST_AHEAD else ""
    yield f"{ahead or 'No'}{more} {'jobs are' if ahead > 1 else 'job is'} ahead of it."
    yield from _workers(facts)
    if facts.starts_at is not None and facts.expected_seconds is not None:
        yield (
            f"It may start at about {_at(facts.starts_at)}, if a job of its type takes {facts.expected_seconds:.3g} s."
        )


def _workers(facts: Facts) -> Iterator[str]:
    kind = facts.job.content_type
    if not facts.redis:
        yield "Redis does not answer, so it is not known which workers ask; only those that hold a job are known."
    active = facts.active
    waiting = [hand for hand in active if facts.is_waiting(hand)]
    if waiting:
        free = sum(map(facts.free_slots, waiting))
        who = "1 worker waits" if len(waiting) == 1 else f"{len(waiting)} workers wait"
        yield f"{who} for `{kind}` now, with {counted(free, 'free slot')}."
    if active:
        yield f"Held by workers that take `{kind}`: {counted(sum(hand.jobs_in_hand for hand in active), 'job')}."
    elif facts.redis and not any(hand.pause for hand in facts.accepting):
        yield f"No worker waits for `{kind}` now or works on a job: start one that names this content type."
        last = max((hand for hand in facts.accepting if hand.last_seen), key=_seen, default=None)
        if last is not None and last.last_seen is not None:
            yield f"The last one that asked was {_name(last)}, at {_at(last.last_seen)}."
    paused = [(hand, hand.pause) for hand in facts.accepting if hand.pause is not None]
    for hand, pause in paused[:MOST_NAMED]:
        until = f"until {_at(pause.until)}" if pause.until else "until it is resumed"
        yield f"Worker {_name(hand)} is {'drained' if pause.drain else 'paused'} {until}: {pause.reason}"
    for hand in facts.denied[:MOST_NAMED]:
        yield f"The key of worker {_name(hand)} does not allow `{kind}`, although the worker asks for it."
    if (more := max(0, len(paused) - MOST_NAMED) + max(0, len(facts.denied) - MOST_NAMED)) > 0:
        yield f"{more} more workers are paused or not allowed `{kind}`; GET /api/v1/workers lists them."
    if not facts.some_key_allows:
        yield f"No key of this tenant that may work allows `{kind}`: make one with scope work."


def _processing(facts: Facts) -> Iterator[str]:
    job = facts.job
    who = _name(facts.holder) if facts.holder is not None else job.worker_id
    yield f"It is processing: worker {who} claimed it at {_at(job.started_at)}, as attempt {job.attempt}."
    if job.acknowledged_at is None:
        yield "The claim is not acknowledged: the worker has not shown a sign of life yet."
    if job.progress is not None or job.message is not None:
        done = "" if job.progress is None else f" {job.progress:.0%}"
        yield f"The worker reports{done}{'' if job.message is None else f': {job.message}'}."
    if facts.completes_at is not None:
        yield f"It may be done at about {_at(facts.completes_at)}."


def _ended(facts: Facts) -> Iterator[str]:
    job = facts.job
    yield f"It ended as {job.status} at {_at(job.completed_at)}{_why(job.error_message)}"
    sent = facts.continuation
    if sent is None:
        yield "No continuation was recorded: BRIDGE_CONTINUATION_TASK was not set when it ended."
    elif sent.confirmed_at is not None:
        yield f"The pipeline confirmed the continuation at {_at(sent.confirmed_at)}."
    elif sent.sent_at is not None and sent.next_at is None:
        yield f"The continuation was handed over at {_at(sent.sent_at)}."
    elif sent.sent_at is not None:
        again = (
            f"it is sent again at {_at(sent.next_at)}"
            if sent.next_at > facts.now
            else "it is sent again once it can no longer be in the pipeline's queue"
        )
        yield f"The continuation was handed over at {_at(sent.sent_at)} and is not confirmed; {again}."
    else:
        yield f"The continuation was not handed over yet ({sent.tries} tries){_why(sent.last_error)}"
    if sent is not None and sent.sent_at is not None and sent.confirmed_at is None and facts.pipeline is not None:
        told = sentence(facts.pipeline, job.tenant)
        if told is not None:
            yield told
    if facts.webhook is not None:
        yield _webhook(facts.webhook, facts.now)


def _webhook(call: Row[Any], now: datetime) -> str:
    if call.state == WebhookState.DELIVERED:
        return f"Its webhook was delivered to {call.receiver} at {_at(call.delivered_at)}."
    called = f"Its webhook to {call.receiver} was"
    if call.state == WebhookState.FAILED:
        return f"{called} given up{_why(call.last_error)} It is sent only if resent."
    if call.tries == 0:
        late = call.next_at < now - timedelta(seconds=DUE_SECONDS)
        hint = f" although it has been due since {_at(call.next_at)}: does a Celery worker take bridge.webhooks?"
        return f"{called} not tried yet{hint if late else '.'}"
    times = "once" if call.tries == 1 else f"{call.tries} times"
    return f"{called} tried {times} and not delivered{_why(call.last_error)} It is tried again at {_at(call.next_at)}."


def _name(hand: WorkerInfo) -> str:
    return hand.worker_id if hand.key is None else f"{hand.worker_id} (key {hand.key.name}, {hand.key.prefix})"


def _seen(hand: WorkerInfo) -> datetime:
    assert hand.last_seen is not None
    return hand.last_seen


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _why(reason: str | None) -> str:
    if not reason:
        return "."
    return f": {reason}" if reason.endswith(".") else f": {reason}."
