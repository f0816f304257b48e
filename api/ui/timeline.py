"""The life of a job as a picture: its attempts on a time axis. Computes only where each bar is and what it says."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row

from bridge.jobs.read import History
from models.job_state import FINAL, JobState

WIDTH = 1000.0  # of the axis, in the picture's own units
ROW = 26  # height of a row, in the same units
MOST = 40  # bars; with more attempts, the last ones
LEAST = 3.0  # width of a bar that would be too short to see


class Bar(NamedTuple):
    """A stretch of time."""

    kind: str  # waiting, running, or how an attempt ended
    label: str
    x: float
    width: float
    y: int
    began: datetime
    ended: datetime


class Picture(NamedTuple):
    """What to draw."""

    bars: list[Bar]
    began: datetime
    ended: datetime
    height: int
    more: bool  # whether earlier parts of its life are not shown
    asked: list[tuple[float, str, datetime]]  # requests to cancel or retry: x, what, when


def timeline(job: Row[Any], past: History, now: datetime) -> Picture:
    """Return the picture of a job, from its creation to its end, or to now."""
    began: datetime = job.created_at
    ended = max(job.completed_at if job.status in FINAL else now, began)
    stretches = list(_stretches(job, past, ended))
    more = len(stretches) > MOST or past.attempts_before is not None
    stretches = stretches[-MOST:]
    if more:
        began = stretches[0][2]
    whole = max((ended - began).total_seconds(), 0.001)

    def at(moment: datetime) -> float:
        return min(max((moment - began).total_seconds(), 0) / whole, 1) * WIDTH

    bars = []
    for row, (kind, label, start, end) in enumerate(stretches):
        width = max(at(end) - at(start), LEAST)
        bars.append(Bar(kind, label, min(at(start), WIDTH - width), width, row * ROW, start, max(start, end)))
    asked = [(at(request.asked_at), request.what, request.asked_at) for request in past.requests[-MOST:]]
    return Picture(bars, began, ended, len(bars) * ROW, more, asked)


def _stretches(job: Row[Any], past: History, end: datetime) -> Iterator[tuple[str, str, datetime, datetime]]:
    """Yield (kind, label, from, to) in order: attempts, and the waits between them."""
    free = job.created_at
    if past.attempts_before is not None:  # earlier ones were not read
        free = past.attempts[0].claimed_at
    for attempt in past.attempts:
        if attempt.claimed_at > free:
            yield "waiting", "waited", free, attempt.claimed_at
        label = f"attempt {attempt.attempt}: {attempt.how.replace('_', ' ')}, {attempt.worker_id}"
        yield attempt.how, label, attempt.claimed_at, attempt.ended_at
        free = max(free, attempt.ended_at)
    if job.status == JobState.PROCESSING:
        if job.started_at > free:
            yield "waiting", "waited", free, job.started_at
        yield "running", f"attempt {job.attempt}: running, {job.worker_id}", job.started_at, end
    elif job.status == JobState.PENDING:
        yield "waiting", "waits", free, end
    elif end > free:
        yield "waiting", "waited", free, end
