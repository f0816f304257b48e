"""What is counted of what happens to jobs, wherever it happens: the same names in the API and in Celery's processes.

Labels are bounded: constants of ours, and content types, of which those that came first have their own labels and all
further ones, which a key may make up, share one.
"""

from itertools import product
from typing import NamedTuple, Protocol

from bridge.insight.gauges import MOST_TYPES, OTHER
from bridge.job_events import Observer, StateChange
from models.job_state import FINAL, LATE_CHANGES, Change

MOST_TIMED = 30  # content types with separate histograms


class Family(NamedTuple):
    """A counter, or a histogram if it has buckets."""

    name: str
    told: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds, in seconds
    known: tuple[tuple[str, ...], ...] = ()  # of a counter shown from the start, as 0: the first one is an increase


LONG = (1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
SHORT = (0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0)
CREATED = Family("bridge_jobs_created", "Jobs created, over HTTP or Celery.", ("content_type",))
CLAIMED = Family("bridge_jobs_claimed", "Claims made for workers.", ("content_type",))
FINISHED = Family("bridge_jobs_finished", "Jobs that ended, by the state they ended in.", ("content_type", "status"))
ENDED = Family("bridge_attempts_ended", "Attempts that ended, by how.", ("how",))
WAITED = Family("bridge_queue_wait_seconds", "From claimable to claimed.", ("content_type",), SHORT)
RAN = Family("bridge_processing_seconds", "From the claim to the end of the attempt.", ("content_type",), LONG)
SENT = Family("bridge_continuations_sent", "Outcomes sent to the pipeline's queue; `again`: once more.", ("again",))
HANDED = Family("bridge_continuation_seconds", "From an outcome to its first sending.", (), SHORT)
CALLED = Family(
    "bridge_webhooks_sent",
    "Webhooks sent, by what came of it and what was answered.",
    ("how", "answer"),
    known=(("delivered", "2xx"), *product(("failed", "given_up"), ("3xx", "4xx", "5xx", "none"))),
)
FAMILIES = (CREATED, CLAIMED, FINISHED, ENDED, WAITED, RAN, SENT, HANDED, CALLED)


class Tally(Protocol):
    """Adds up: a count, or the seconds that something took."""

    def inc(self, family: Family, *labels: str) -> None: ...

    def observe(self, family: Family, seconds: float, *labels: str) -> None: ...


class Labels:
    """The content types that have a separate label in this process."""

    def __init__(self, most: int) -> None:
        self._own: set[str] = set()
        self._most = most

    def __call__(self, content_type: str) -> str:
        """Return the label of a content type."""
        if content_type in self._own:
            return content_type
        if len(self._own) >= self._most:
            return OTHER
        self._own.add(content_type)
        return content_type


class Counting(Observer):
    """An observer that adds up."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._label, self._timed = Labels(MOST_TYPES), Labels(MOST_TIMED)

    def changed(self, told: StateChange) -> None:
        tally, kind = self._tally, self._label(told.content_type)
        if told.change is None:
            tally.inc(CREATED, kind)
        elif told.change is Change.CLAIM:
            tally.inc(CLAIMED, kind)
            tally.observe(WAITED, told.seconds or 0.0, self._timed(told.content_type))
        elif told.change in LATE_CHANGES:
            pass  # its attempt was counted when it was lost
        elif told.end is not None:
            tally.inc(ENDED, told.end)
            tally.observe(RAN, told.seconds or 0.0, self._timed(told.content_type))
        if told.target in FINAL:
            tally.inc(FINISHED, kind, told.target)

    def sent(self, seconds: float, again: bool) -> None:
        self._tally.inc(SENT, "true" if again else "false")
        if not again:
            self._tally.observe(HANDED, seconds)

    def called(self, how: str, answer: str) -> None:
        self._tally.inc(CALLED, how, answer)
