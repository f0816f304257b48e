"""The loop that bounds a sweep, and the record of its runs, which bridge/insight/gauges.py shows."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from bridge.periodic_work import SWEEP_PERIODS

RECORD = text("""
INSERT INTO sweeps (name, ran_at, seconds, changed, total) VALUES (:name, now(), :seconds, :changed, :changed)
ON CONFLICT (name) DO UPDATE SET ran_at = now(), seconds = excluded.seconds, changed = excluded.changed,
  total = sweeps.total + excluded.changed
WHERE sweeps.changed > 0 OR excluded.changed > 0 OR sweeps.ran_at < now() - interval '5 seconds'
""")

# A sweep is late after this many of its periods, but not before this many seconds: it may have just been started.
LATE_PERIODS = 4
LATE_SECONDS = 30


def is_late(name: str, age: float) -> bool:
    """Return whether a sweep that ran last `age` seconds ago should have run since."""
    period = SWEEP_PERIODS.get(f"bridge.{name}")
    return period is not None and age > max(LATE_SECONDS, LATE_PERIODS * period)


def in_batches(work: Callable[[], int], *, batch: int, rounds: int) -> int:
    """Do `work` until it finds less than a batch, at most `rounds` times; return how much it did in all."""
    done = 0
    for _ in range(rounds):
        count = work()
        done += count
        if count < batch:
            break
    return done


@contextmanager
def swept(engine: Engine, name: str) -> Iterator[dict[str, int]]:
    """Record a run of a sweep: set `changed` to what it moved. Idle runs are recorded at most every 5 s."""
    run = {"changed": 0}
    began = time.monotonic()
    yield run
    with engine.begin() as connection:
        params = {"name": name, "seconds": time.monotonic() - began, "changed": run["changed"]}
        connection.execute(RECORD, params)
