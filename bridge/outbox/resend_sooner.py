"""A confirmation shows that the pipeline works: what has a long wait before it is sent again is sent sooner.

Waits between sendings double while nothing is heard from the pipeline. While it confirms, they grow by one step at a
time: an outcome that was lost ten times in a row still comes soon, and one that the pipeline never confirms costs
it ever less. What comes sooner is still sent by `repeat`, within its bounds.
"""

import time

from sqlalchemy import text

from bridge.outbox.outcomes import JITTER
from bridge.runtime import Runtime

EVERY_SECONDS = 10.0  # of each process, however many confirmations come
MOST_TOGETHER = 500  # outcomes of one statement; the next confirmation goes on

# Only waits that have more than their second step (:confirm_seconds * 2) still before them are looked at, so this reads
# no outcome that was sent for the first or second time; what was never sent has no `sooner`. The jitter is that of the
# outcome and the try, as where the wait was set (SENT in outcomes.py): a row that was changed does not change again.
SOONER = text("""
WITH late AS MATERIALIZED (
  SELECT job_id, n, sooner FROM continuations, LATERAL (
    SELECT sent_at + make_interval(secs => CAST(:confirm_seconds AS float) * tries
      * (1 + :jitter * hashtext(CAST(job_id AS text) || n || tries) / 2147483648.0)) AS sooner
  ) wait
  WHERE next_at > now() + make_interval(secs => CAST(:confirm_seconds AS float) * 2)
    AND next_at > sooner
  ORDER BY next_at DESC LIMIT :most FOR UPDATE OF continuations SKIP LOCKED
)
UPDATE continuations c SET next_at = late.sooner FROM late WHERE c.job_id = late.job_id AND c.n = late.n
""")


def resend_sooner(runtime: Runtime, *, most: int = MOST_TOGETHER, jitter: float = JITTER) -> int:
    """Shorten up to `most` of the longest waits for a confirmation; return how many there were."""
    if (seconds := runtime.settings.continuation_confirm_seconds) is None:
        return 0
    with runtime.engine.begin() as connection:
        params = {"confirm_seconds": seconds, "jitter": jitter, "most": most}
        return connection.execute(SOONER, params).rowcount


class ResendSooner:
    """Calls `resend_sooner` after a confirmation, at most once in `every` seconds. One for each process."""

    def __init__(self, every: float = EVERY_SECONDS) -> None:
        self._every = every
        self._next = 0.0

    def __call__(self, runtime: Runtime) -> None:
        if time.monotonic() < self._next:
            return
        resend_sooner(runtime)
        self._next = time.monotonic() + self._every
