"""Claim the job that the caller names, under the same guard, lease, attempt and token as a poll's claim."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Row

from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Conflict, Forbidden, Invalid
from bridge.job_events import REQUEST_ID
from bridge.jobs import report_changes
from bridge.jobs.claim import WITHHELD_SECONDS, Claimant, Claimed, claim
from bridge.jobs.read import STANDING, find
from bridge.queues import RANKS, Entry, Queue
from bridge.runtime import Runtime
from bridge.workers.pauses import now_paused, of_worker, refusal
from models.job_state import FINAL, JobState

# Whether the worker may hold another job: returns, or raises the refusal. Not asked where a claim is repeated.
Admit = Callable[[], object]


class Named(NamedTuple):
    """The claim of a named job."""

    job: Claimed
    again: bool  # it had been given under this claim_id before


def claim_named(
    runtime: Runtime,
    caller: Caller,
    job_id: str,
    worker_id: str,
    *,
    lease: int | None = None,
    claim_id: str | None = None,
    admit: Admit = lambda: None,
) -> Named:
    """Claim this job for a worker of the caller; `lease` in seconds.

    A repetition with the same `claim_id` gets the same claim, as long as it is not acknowledged. Raises NotFound;
    Forbidden: the key is limited to other content types; Paused: the worker is given no jobs; Conflict: somebody else
    holds the job (already_claimed), it is finished (already_finished), or it may not be claimed yet (not_ready);
    Invalid: the claim_id was used for another job; and what `admit` raises.
    """
    job = find(runtime, caller.tenant, job_id, STANDING)
    if caller.content_types is not None and job.content_type not in caller.content_types:
        raise Forbidden(f"This key is limited to the content types {', '.join(sorted(caller.content_types))}.")
    mine = (job.key_id, job.worker_id, job.claim_id) == (caller.key_id, worker_id, claim_id)
    repeated = claim_id is not None and mine and job.status == JobState.PROCESSING
    if job.status != JobState.PENDING and not repeated:
        raise _refusal(job)
    with runtime.engine.connect() as connection:
        paused = of_worker([one for one in now_paused(connection, caller.tenant) if one.worker_id == worker_id],
                           caller.key_id)  # fmt: skip
    if paused is not None and not repeated:
        raise refusal(paused)
    if not repeated:
        admit()
    who = Claimant(caller.key_id, worker_id, lease, claim_id, caller.tenant)
    with runtime.engine.begin() as connection:
        fates = claim(connection, [(str(job.id), who)], runtime.settings.ack_seconds)
    if (claimed := fates.claimed.get(0)) is not None:
        reach("named.after_commit")
        report_changes.claimed(runtime, who, claimed, REQUEST_ID.get())
        queue = Queue(caller.tenant, job.content_type)
        runtime.mirror.drop(Entry(queue, rank, str(job.id)) for rank in RANKS)  # its age may have raised it
        return Named(claimed, again=False)
    for earlier in fates.again.get(0, ()):
        if earlier.job_id == job.id:
            return Named(earlier, again=True)
    if fates.again:
        raise Invalid({"claim_id": ["Was used for a claim of another job; use a new one."]})
    raise _refusal(find(runtime, caller.tenant, job_id, STANDING))


def _refusal(job: Row[Any]) -> Conflict:
    """Return the reason why the job was not given; it does not say who holds the job."""
    if job.status in FINAL:
        return Conflict(f"The job is {job.status}.", code="already_finished", job_status=job.status)
    if job.status == JobState.PROCESSING:
        why = "The job has been claimed: its worker holds it."
        return Conflict(why, code="already_claimed", job_status=job.status)
    why = (
        "The job is pending but cannot be claimed now: it is not due yet, its queue timeout has passed, another request"
        f" is changing it, or this worker gave it back less than {WITHHELD_SECONDS} s ago."
    )
    return Conflict(why, code="not_ready", job_status=job.status)
