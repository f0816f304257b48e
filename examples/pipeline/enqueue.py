"""Enqueues a job for each file; prints job ID, content type, ingestion task ID and path, tab-separated.

`python enqueue.py report.pdf video=strange.bin`. The bridge must see the same paths, below its
BRIDGE_SOURCE_ROOTS.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path

from celery.exceptions import TimeoutError as NoAnswer
from celery.result import AsyncResult
from pipeline_app import BRIDGE_QUEUE, ENQUEUE, app

CONTENT_TYPES = {
    **dict.fromkeys((".pdf", ".docx", ".pptx", ".xlsx", ".epub"), "document"),
    **dict.fromkeys((".html", ".htm"), "web"),
    **dict.fromkeys((".wav", ".mp3", ".flac", ".ogg", ".m4a"), "audio"),
    **dict.fromkeys((".mp4", ".mkv", ".webm", ".mov"), "video"),
}


def enqueue(path: Path, content_type: str, ingestion_task_id: str) -> AsyncResult:
    """Send one file's job to the bridge; the result is `{"job_id", "status", "created_at"}`."""
    return app.send_task(
        ENQUEUE,
        kwargs={
            "source_file_path": str(path),
            "content_type": content_type,
            "ingestion_task_id": ingestion_task_id,
            "task_options": {"name": path.name},
        },
        queue=BRIDGE_QUEUE,
    )


def main() -> int:
    """Enqueue the files of the command line; 1 when a job was not accepted, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(description="Enqueues one job for each file.")
    parser.add_argument("files", nargs="+", metavar="[TYPE=]FILE")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for the bridge's answer")
    options = parser.parse_args()
    sent = []
    for argument in options.files:
        content_type, _, name = argument.rpartition("=")
        path = Path(name).resolve()
        content_type = content_type or CONTENT_TYPES.get(path.suffix.lower(), "")
        if not content_type:
            print(f"{name}: give its type, as in document={name}", file=sys.stderr)
            return 2
        task_id = f"sample-{uuid.uuid4()}"
        sent.append((path, content_type, task_id, enqueue(path, content_type, task_id)))
    failed = False
    for path, content_type, task_id, answer in sent:
        try:
            job_id = answer.get(timeout=options.timeout)["job_id"]
        except NoAnswer:
            print(f"{path.name}: no answer from the bridge; its job may still come", file=sys.stderr)
            failed = True
        except Exception as error:  # whatever the bridge's task raised, by a class of its own
            print(f"{path.name}: not accepted: {error}", file=sys.stderr)
            failed = True
        else:
            print(job_id, content_type, task_id, path, sep="\t", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
