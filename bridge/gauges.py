"""Numbers about the whole, for /metrics: what waits, what is stuck, when each sweep last ran and what it found."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from bridge.runtime import Runtime
from models.outbox import OutcomeState

RECORD = text("""
INSERT INTO sweeps (name, ran_at, seconds, changed) VALUES (:name, now(), :seconds, :changed)
ON CONFLICT (name) DO UPDATE SET ran_at = now(), seconds = excluded.seconds, changed = excluded.changed
WHERE sweeps.changed > 0 OR excluded.changed > 0 OR sweeps.ran_at < now() - interval '5 seconds'
""")

DEPTH = text("""
SELECT content_type, status, count(*) FROM remote_jobs WHERE status IN ('pending', 'processing') GROUP BY 1, 2
""")
STUCK = text(f"""
SELECT count(*) AS waiting, count(*) FILTER (WHERE state = '{OutcomeState.FAILING}') AS failing
FROM continuations WHERE next_at IS NOT NULL
""")
SWEEPS = text("SELECT name, extract(epoch FROM now() - ran_at) AS age, seconds, changed FROM sweeps")


@contextmanager
def swept(runtime: Runtime, name: str) -> Iterator[dict[str, int]]:
    """Record a run of a sweep: set `changed` to what it moved. Idle runs are recorded at most every 5 s."""
    run = {"changed": 0}
    began = time.monotonic()
    yield run
    with runtime.engine.begin() as connection:
        params = {"name": name, "seconds": time.monotonic() - began, "changed": run["changed"]}
        connection.execute(RECORD, params)


def read(runtime: Runtime) -> dict[str, Any]:
    """Unfinished jobs by content type and status, continuations not handed over, and the sweeps."""
    with runtime.engine.connect() as connection:
        return {
            "depth": connection.execute(DEPTH).all(),
            "stuck": connection.execute(STUCK).one(),
            "sweeps": connection.execute(SWEEPS).all(),
        }
