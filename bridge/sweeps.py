"""The record of each sweep: when it ran last, how long it took, what it moved. bridge/insight/gauges.py shows it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

RECORD = text("""
INSERT INTO sweeps (name, ran_at, seconds, changed, total) VALUES (:name, now(), :seconds, :changed, :changed)
ON CONFLICT (name) DO UPDATE SET ran_at = now(), seconds = excluded.seconds, changed = excluded.changed,
  total = sweeps.total + excluded.changed
WHERE sweeps.changed > 0 OR excluded.changed > 0 OR sweeps.ran_at < now() - interval '5 seconds'
""")


@contextmanager
def swept(engine: Engine, name: str) -> Iterator[dict[str, int]]:
    """Record a run of a sweep: set `changed` to what it moved. Idle runs are recorded at most every 5 s."""
    run = {"changed": 0}
    began = time.monotonic()
    yield run
    with engine.begin() as connection:
        params = {"name": name, "seconds": time.monotonic() - began, "changed": run["changed"]}
        connection.execute(RECORD, params)
