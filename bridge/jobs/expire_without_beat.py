"""Expire jobs where the sweep does not come in time: beat, Celery or the broker is away, or an intake flood delays it.

Each API process looks once a second. A sweep that comes every five seconds leaves it nothing to do.
"""

import time
from collections.abc import Callable

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from bridge.background import every
from bridge.jobs.expire import expire
from bridge.runtime import Runtime
from bridge.sweeps import swept
from models.job import DEADLINE_RUNS, QUEUE_CLOCK_RUNS

log = structlog.get_logger("bridge.jobs.expire_without_beat")

TICK_SECONDS = 1.0
PATIENCE_SECONDS = 5.5  # the sweep's period, and a moment for its run; with the tick less than its period plus 2 s
GRACE_SECONDS = 30.0  # within which live workers renew their leases once they can

_AGO = f"now() - interval '{PATIENCE_SECONDS} seconds'"
# One lookup in each clock's index. The deadline of an attempt that nobody has acknowledged ends nothing.
OVERDUE = text(f"""
SELECT EXISTS (SELECT FROM remote_jobs WHERE {QUEUE_CLOCK_RUNS} AND timeout_at <= {_AGO})
  OR EXISTS (SELECT FROM remote_jobs WHERE lease_expires_at <= {_AGO})
  OR EXISTS (SELECT FROM remote_jobs WHERE {DEADLINE_RUNS} AND timeout_at <= {_AGO}
    AND acknowledged_at IS NOT NULL)
""")


class ExpiryWithoutBeat:
    """Expires jobs that are past their clock for longer than the sweep takes to come.

    Not in the first half minute of the process, nor after PostgreSQL was away: leases ran out meanwhile because nobody
    could renew them.
    """

    def __init__(self, runtime: Runtime, now: Callable[[], float] = time.monotonic) -> None:
        self._runtime = runtime
        self._now = now
        self._from = now() + GRACE_SECONDS

    def keep(self) -> None:
        """Look once a second from now on, in a separate greenlet."""
        every(TICK_SECONDS, "end what is overdue", self.look)

    def look(self) -> None:
        """Move what is overdue, one batch of each sweep; the next look takes the rest. Raises SQLAlchemyError."""
        try:
            with self._runtime.engine.connect() as connection:
                overdue = connection.execute(OVERDUE).scalar_one()
        except SQLAlchemyError:
            self._from = self._now() + GRACE_SECONDS
            raise
        if not overdue or self._now() < self._from:
            return
        with swept(self._runtime.engine, "end_overdue") as run:
            run["changed"] = expire(self._runtime, rounds=1)
        if run["changed"]:
            log.warning("expiry_fallback_ran", changed=run["changed"])
