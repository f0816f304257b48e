"""What needs attention: what is stuck, where, since when, whose it is, what to do. Pure: nothing here does I/O."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from bridge.blobs.quotas import Share
from bridge.names import COLLECT
from bridge.outbox.pipeline_queue import PipelineQueue, sentence
from bridge.outbox.undelivered import DO, Trouble
from bridge.outbox.undelivered import sentences as of_webhooks
from bridge.sweeps import is_late
from bridge.workers.roster import Roster
from models.pause import PausedBy

MOST = 20  # sentences of a kind
COLLECTION = COLLECT.removeprefix("bridge.")  # the one sweep that needs the store
STUCK_SECONDS = 60  # after which a claimable job that nobody asks for is stuck


class QueueNow(NamedTuple):
    """A content type: what there is to do, by whom, and how it went within the last hour."""

    content_type: str
    pending: int
    processing: int
    oldest_seconds: float | None  # for how long its oldest claimable job has waited
    workers_waiting: int
    workers: int
    completed: int  # within the last hour, as the next
    failed: int
    median_seconds: float | None
    p95_seconds: float | None

    @property
    def weight(self) -> int:
        return self.pending + self.processing + self.completed + self.failed


class Need(NamedTuple):
    """Something that does not repair itself."""

    kind: str  # a stable word
    what: str  # a sentence
    do: str  # what to do about it
    page: str  # of the dashboard that shows more


def needs(
    queues: Sequence[QueueNow],
    known: Roster,
    sweeps: Sequence[Row[Any]],
    failing: int,
    pipeline: PipelineQueue | None,
    tenant: str,
    webhooks: Sequence[Row[Any]],
    full: Sequence[Share],
) -> list[Need]:
    """Return all that needs attention, the most urgent first."""
    return [
        *_sweeps(sweeps),
        *_queues(queues, known),
        *_outcomes(failing, pipeline, tenant),
        *_webhooks(webhooks),
        *(Need("uploads_nearly_full", share.sentence(), share.cure(), "jobs") for share in full),
        *_paused(known),
    ]


def _sweeps(sweeps: Sequence[Row[Any]]) -> Iterator[Need]:
    late = [sweep for sweep in sweeps if is_late(sweep.name, sweep.age)]
    if [sweep.name for sweep in late] == [COLLECTION]:
        yield Need(
            "store_refuses",
            f"Uploads that nobody needs are not removed: {COLLECTION} has not succeeded for {late[0].age / 60:.0f} min,"
            " while the other sweeps run.",
            "See that Celery's workers can write to the store (`jobbridge doctor`); their log names the error.",
            "sweeps",
        )
    elif late:
        named = ", ".join(sweep.name for sweep in late)
        yield Need(
            "sweeps_late",
            f"No sweep came in time: {named}; the longest for {max(sweep.age for sweep in late):.0f} s.",
            "See that beat and a Celery worker run, and that the broker answers.",
            "sweeps",
        )


def _queues(queues: Sequence[QueueNow], known: Roster) -> Iterator[Need]:
    if not known.redis:
        yield Need(
            "redis_away",
            "Redis does not answer or takes no writes. Jobs go on, more slowly; which workers wait is not known.",
            "See /readyz and Redis' own log: is it up, has it memory and disk?",
            "sweeps",
        )
        return
    stuck = [queue for queue in queues if queue.pending and not queue.workers
             and (queue.oldest_seconds or 0) > STUCK_SECONDS]  # fmt: skip
    for queue in stuck[:MOST]:
        yield Need(
            "no_worker",
            f"{counted(queue.pending, 'job')} of {queue.content_type} waiting, the oldest for"
            f" {queue.oldest_seconds:.0f} s, and no worker asks for that type.",
            "Start a worker that names it, or see why those that did have stopped.",
            "jobs",
        )


def _outcomes(failing: int, pipeline: PipelineQueue | None, tenant: str) -> Iterator[Need]:
    if failing:
        yield Need(
            "continuations_failing",
            f"{counted(failing, 'outcome')} tried often and not handed over, or not confirmed.",
            "See whether the broker takes messages and the pipeline consumes its queue; then send them again.",
            "continuations",
        )
    if pipeline is not None and not pipeline.consumed and (told := sentence(pipeline, tenant)):
        yield Need(
            "pipeline_queue_untouched",
            told,
            "Start the pipeline's worker for its queue, or see why it takes nothing.",
            "continuations",
        )


def _webhooks(rows: Sequence[Row[Any]]) -> Iterator[Need]:
    for trouble, told in of_webhooks(rows).items():
        yield Need(f"webhooks_{trouble}", told, DO[trouble], f"webhooks{_LISTS[trouble]}")


_LISTS = {Trouble.FAILING: "?state=failing", Trouble.GIVEN_UP: "?state=failed", Trouble.UNTRIED: "?state=waiting"}


def _paused(known: Roster) -> Iterator[Need]:
    troubled = [hand for hand in known.hands if hand.pause is not None and hand.pause.by == PausedBy.BRIDGE]
    if troubled:
        named = ", ".join(hand.worker_id for hand in troubled[:5])
        yield Need(
            "worker_in_trouble",
            f"The bridge has paused {counted(len(troubled), 'worker')} whose last jobs were lost or failed at once:"
            f" {named}.",
            "Look at their logs; resume them when they are well.",
            "workers",
        )


def counted(count: int, what: str) -> str:
    """Format a number of things, in words."""
    return f"{count} {what}{'' if count == 1 else 's'}"
