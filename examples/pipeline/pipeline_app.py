"""A sample ingestion pipeline: a separate Celery application that knows the bridge only by task names.

Its task `sample_pipeline.receive` (queue `pipeline`) receives what the bridge hands over, records it and
confirms. Start it with `celery -A pipeline_app worker -Q pipeline` in this directory.

Environment: PIPELINE_BROKER_URL (the Redis that the bridge's Celery uses), PIPELINE_STATE (a SQLite file,
default `pipeline.sqlite3` here), PIPELINE_RESULT_URL (default: the broker; where `enqueue.py` reads job IDs), and
those of local_fallback.py, to convert what no remote worker polls for, and of results.py, for texts that are too long
for a message.

The SQLite file, in WAL mode, holds one row for each outcome, however often it was delivered:

    receipts(job_id TEXT, n INTEGER, ingestion_task_id TEXT, content_type TEXT, status TEXT, success INTEGER,
             content TEXT, received_at REAL, deliveries INTEGER, recorded_at TEXT, PRIMARY KEY (job_id, n))

`n` counts the job's outcomes, `received_at` is the first delivery in seconds since 1970, `success`
is 0 or 1, `recorded_at` is when the bridge recorded the outcome. A text of more than a MiB is a file, as artifacts
are; `content` is NULL then. Files lie in PIPELINE_FILES (default `pipeline-files` beside the SQLite file) under their
SHA-256:

    files(job_id TEXT, n INTEGER, name TEXT, media_type TEXT, sha256 TEXT, PRIMARY KEY (job_id, n, name))

The text's name is empty.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning  # type: ignore[attr-defined]  # the stubs lack it
from celery.utils.log import get_task_logger
from kombu.exceptions import OperationalError
from local_fallback import convert_here
from results import artifacts_of, keep, text_of

ENQUEUE = "bridge.enqueue_remote_job"
CONFIRM = "bridge.confirm_continuation"
BRIDGE_QUEUE = "bridge"
CONFIRM_QUEUE = "bridge.outcomes"  # `bridge` is listened to as well; there a confirmation waits behind creates
RECEIVE = "sample_pipeline.receive"
PIPELINE_QUEUE = "pipeline"
IN_ROW = 2**20  # bytes of a text; SQLite takes at most a gigabyte, and all of it would be in memory

# In a container everything is root, and what the warning is about, pickle, is refused below. C_FORCE_ROOT
# does not silence it.
warnings.filterwarnings("ignore", category=SecurityWarning)

BROKER_URL = os.environ.get("PIPELINE_BROKER_URL", "redis://127.0.0.1:6379/0")
RESULT_URL = os.environ.get("PIPELINE_RESULT_URL", BROKER_URL)
app = Celery("sample_pipeline", broker=BROKER_URL, backend=RESULT_URL)
app.conf.update(
    # JSON only: whoever can write to the broker could run code through pickle.
    accept_content=["json"],
    result_accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    task_default_queue=PIPELINE_QUEUE,
    # A message is taken off only after the receipt is on disk; twice is harmless, see `record`.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    # Whoever can write to the broker must not be able to stop this worker.
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    # By default the worker ends when the broker answers and refuses (read-only, out of memory, a failed save),
    # and gives up after 100 tries to reach one that is away.
    broker_channel_error_retry=True,
    broker_connection_max_retries=None,
    worker_consumer="pipeline_consumer:Consumer",
    # The bridge's Celery is on the same Redis. With the default names each application would put back the
    # other's unacknowledged messages after its own visibility timeout.
    broker_transport_options={
        "visibility_timeout": 3600,
        # Without them a silently broken connection is waited for without end.
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "unacked_key": "sample_pipeline.unacked",
        "unacked_index_key": "sample_pipeline.unacked_index",
        "unacked_mutex_key": "sample_pipeline.unacked_mutex",
    },
)
log = get_task_logger(__name__)

SCHEMA = """CREATE TABLE IF NOT EXISTS receipts (
    job_id TEXT NOT NULL, n INTEGER NOT NULL, ingestion_task_id TEXT NOT NULL,
    content_type TEXT NOT NULL, status TEXT NOT NULL, success INTEGER NOT NULL, content TEXT,
    received_at REAL NOT NULL, deliveries INTEGER NOT NULL, recorded_at TEXT, PRIMARY KEY (job_id, n))"""

FILES = """CREATE TABLE IF NOT EXISTS files (
    job_id TEXT NOT NULL, n INTEGER NOT NULL, name TEXT NOT NULL, media_type TEXT NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (job_id, n, name))"""


def state_path() -> Path:
    """Return the file of receipts."""
    return Path(os.environ.get("PIPELINE_STATE") or Path(__file__).with_name("pipeline.sqlite3"))


@contextlib.contextmanager
def state() -> Iterator[sqlite3.Connection]:
    """Open the file of receipts, created if missing; commit to disk when the block ends without an error."""
    with contextlib.closing(sqlite3.connect(state_path(), timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a receipt that was confirmed must survive a power cut
        with connection:
            connection.execute(SCHEMA)
            connection.execute(FILES)
            if "recorded_at" not in {column[1] for column in connection.execute("PRAGMA table_info(receipts)")}:
                connection.execute("ALTER TABLE receipts ADD COLUMN recorded_at TEXT")  # a file of an older sample
            yield connection


def files_path() -> Path:
    """Return the directory of texts and artifacts."""
    return Path(os.environ.get("PIPELINE_FILES") or state_path().with_name("pipeline-files"))


def record(outcome: dict[str, Any], files: Sequence[tuple[str, str, str]] = ()) -> int:
    """Write one delivery; return which one of this (job_id, n) it is, from 1. `files`: name, media type, SHA-256.

    A delivery with a later `recorded_at` is another outcome: the bridge's database was restored to a moment before the
    first one, and the job ended again. The later one counts.
    """
    with state() as connection:
        row = connection.execute(
            "INSERT INTO receipts VALUES (:job_id, :n, :ingestion_task_id, :content_type, :status, :success,"
            " :content, :received_at, 1, :recorded_at)"
            " ON CONFLICT (job_id, n) DO UPDATE SET deliveries = deliveries + 1 RETURNING deliveries",
            {**outcome, "success": int(outcome["success"]), "received_at": time.time()},
        ).fetchone()
        later = connection.execute(
            "UPDATE receipts SET status = :status, success = :success, content = :content, recorded_at = :recorded_at"
            " WHERE job_id = :job_id AND n = :n AND recorded_at < :recorded_at",
            {**outcome, "success": int(outcome["success"])},
        ).rowcount
        if row[0] == 1 or later:
            key = (outcome["job_id"], outcome["n"])
            connection.execute("DELETE FROM files WHERE job_id = ? AND n = ?", key)
            connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", [(*key, *file) for file in files])
        return int(row[0])


def fetched(outcome: dict[str, Any]) -> tuple[str | None, list[tuple[str, str, str]]]:
    """Return the text, unless it is long, and the files of an outcome, which are in `files_path()` then.

    What is there already is not fetched again. Raises OSError.
    """
    files = []
    content: str | None = outcome["content"]
    if outcome["result_url"] is not None and outcome["result_size"] > IN_ROW:
        keep(outcome["result_url"], outcome["result_sha256"], files_path())
        files.append(("", "text/plain", outcome["result_sha256"]))
    elif outcome["result_url"] is not None:
        content = text_of(outcome)
    for one in artifacts_of(outcome):
        keep(one["url"], one["sha256"], files_path())
        files.append((one["name"], one["media_type"], one["sha256"]))
    return content, files


@app.task(
    name=RECEIVE,
    ignore_result=True,
    autoretry_for=(OperationalError, sqlite3.OperationalError, OSError),
    retry_backoff=True,
    max_retries=None,
)
def receive(
    *,
    job_id: str,
    ingestion_task_id: str,
    content_type: str,
    status: str,
    success: bool,
    content: str | None,
    n: int,
    metadata: dict[str, Any] | None = None,
    processing_time: float | None = None,
    error_message: str | None = None,
    retry_count: int = 0,
    task_options: dict[str, Any] | None = None,
    recorded_at: str | None = None,
    result_url: str | None = None,
    result_size: int | None = None,
    result_sha256: str | None = None,
    artifacts: list[dict[str, Any]] | None = None,
    artifacts_count: int = 0,
    **_later_fields: Any,
) -> None:
    """Receive the outcome of a job, once or more often, and tell the bridge that it is safe here."""
    # Before it is confirmed: if this process dies on the way, the bridge hands the outcome over again.
    if status == "unserved":
        log.info("job %s (%s): no worker polls for it; converted here: %s", job_id, content_type, convert_here(job_id))
    text, files = fetched(
        {"job_id": job_id, "content": content, "result_url": result_url, "result_size": result_size,
         "result_sha256": result_sha256, "artifacts": artifacts, "artifacts_count": artifacts_count}
    )  # fmt: skip
    delivery = record(
        {"job_id": job_id, "n": n, "ingestion_task_id": ingestion_task_id, "content_type": content_type,
         "status": status, "success": success, "content": text, "recorded_at": recorded_at}, files
    )  # fmt: skip
    if delivery == 1:
        told = (job_id, content_type, status, len(text or ""), len(files))
        log.info("job %s (%s) %s, %d characters, %d files", *told)
    else:
        log.info("job %s delivered again (%d times)", job_id, delivery)
    # Also for a repeated delivery: the confirmation of the first may have been lost.
    app.send_task(CONFIRM, kwargs={"job_id": job_id, "n": n}, queue=CONFIRM_QUEUE, ignore_result=True)
