"""The sample pipeline of examples/pipeline, which also keeps every delivery, and may be slow.

Started there with `-A tests.chaos.pipeline`. PIPELINE_SLOW names a file; while it exists, each delivery takes so many
seconds as stand in it. An effect is made where `record` says that a delivery is the first one.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipeline_app
from pipeline_app import app  # noqa: F401  (Celery looks for it here)

_record = pipeline_app.record
TABLES = "job_id TEXT NOT NULL, n INTEGER NOT NULL, status TEXT NOT NULL, content TEXT"


def record(outcome: dict[str, Any], files: Sequence[tuple[str, str, str]] = ()) -> int:
    """Keep the delivery, then do as the sample does; the effect of a first delivery is kept with it."""
    with contextlib.suppress(OSError, ValueError):
        time.sleep(float(Path(os.environ["PIPELINE_SLOW"]).read_text()))
    row = tuple(outcome[name] for name in ("job_id", "n", "status", "content"))
    with contextlib.closing(sqlite3.connect(pipeline_app.state_path(), timeout=30)) as connection, connection:
        for table in ("deliveries", "effects"):
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({TABLES})")
        connection.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?)", row)
    delivery = _record(outcome, files)
    with contextlib.closing(sqlite3.connect(pipeline_app.state_path(), timeout=30)) as connection, connection:
        # One that dies between its receipt and its effect makes the effect at the next delivery: what must not be is
        # a second one, so the question is whether there is an effect, not which delivery this is.
        connection.execute(
            "INSERT INTO effects SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM effects WHERE job_id = ? AND n = ?)",
            (*row, *row[:2]),
        )
    return delivery


pipeline_app.record = record
