"""Enqueues a job for each file; prints job ID, content type, ingestion task ID and path, tab-separated.

`python enqueue.py report.pdf video=strange.bin`. The bridge must see the same paths, below its
BRIDGE_SOURCE_ROOTS. It asks until the bridge has answered; if it is ended before that, `python enqueue.py` without
files continues.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path

from intake import answers, want

CONTENT_TYPES = {
    **dict.fromkeys((".pdf", ".docx", ".pptx", ".xlsx", ".epub"), "document"),
    **dict.fromkeys((".html", ".htm"), "web"),
    **dict.fromkeys((".wav", ".mp3", ".flac", ".ogg", ".m4a"), "audio"),
    **dict.fromkeys((".mp4", ".mkv", ".webm", ".mov"), "video"),
}


def main() -> int:
    """Enqueue the files of the command line; 1 when a job was not accepted, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(description="Enqueues one job for each file.")
    parser.add_argument("files", nargs="*", metavar="[TYPE=]FILE")
    parser.add_argument("--wait", type=float, default=30, help="seconds until it asks again (default 30)")
    parser.add_argument("--unserved-after", type=int, help="seconds without a worker until it is converted here")
    options = parser.parse_args()
    wanted = []
    for argument in options.files:
        content_type, _, name = argument.rpartition("=")
        path = Path(name).resolve()
        content_type = content_type or CONTENT_TYPES.get(path.suffix.lower(), "")
        if not content_type:
            print(f"{name}: give its type, as in document={name}", file=sys.stderr)
            return 2
        wanted.append((path, content_type))
    for path, content_type in wanted:
        task_id = f"sample-{uuid.uuid4()}"
        fields = {
            "source_file_path": str(path),
            "content_type": content_type,
            "ingestion_task_id": task_id,
            "task_options": {"name": path.name},
            "unserved_after_seconds": options.unserved_after,
        }
        want(task_id, fields)
    failed = False
    for answer in answers(options.wait):
        asked = answer.fields
        if answer.job is None:
            print(f"{asked['task_options']['name']}: not accepted: {answer.refused}", file=sys.stderr)
            failed = True
        else:
            told = (answer.job["job_id"], asked["content_type"], asked["ingestion_task_id"], asked["source_file_path"])
            print(*told, sep="\t", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
