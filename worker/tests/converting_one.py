"""One file through a handler's process, as an attempt sends it there."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge_worker.claim import read_claim
from bridge_worker.converting import RESULT_FILE
from bridge_worker.held import Held
from bridge_worker.process import HandlerProcess, Outcome, Setup
from bridge_worker.result_files import TEXT_FILE


def job_of(kind: str = "audio", name: str = "talk.wav", **task_options: Any) -> Held:
    """Return a job that is held, for a file of this name."""
    told = {"job_id": "x", "content_type": kind, "source_name": name, "task_options": task_options}
    return Held(read_claim(told))


@contextlib.contextmanager
def ready(setup: Setup, directory: Path) -> Iterator[HandlerProcess]:
    """Start a handler's process, and wait until it is ready."""
    process = HandlerProcess(setup, directory)
    try:
        assert process.wait_ready(threading.Event())
        yield process
    finally:
        process.discard()


def convert(process: HandlerProcess, data: bytes, held: Held) -> tuple[Outcome, Any]:
    """Return the outcome, and what would be submitted if it is a result."""
    directory = process.new_job_directory()
    (directory / f"source{Path(held.claim.source_name or '').suffix.lower()}").write_bytes(data)
    (directory / "job.json").write_text(json.dumps(held.claim.for_handler()))
    outcome = process.run(directory, held)
    result = json.loads((directory / RESULT_FILE).read_bytes()) if outcome.kind == "result" else None
    if result and result.get("text"):  # too long for the answer: a file that the worker uploads
        result["content"] = (directory / TEXT_FILE).read_text()
    shutil.rmtree(directory)
    return outcome, result
