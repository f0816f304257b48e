"""`bridge-worker try`: runs a handler over one file in a process like the worker's, without a bridge."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bridge_worker import options as arguments
from bridge_worker.claim import BadClaim, Claim, read_claim
from bridge_worker.converting import RESULT_FILE
from bridge_worker.held import Held
from bridge_worker.loading import BadHandler
from bridge_worker.process import HandlerProcess, NotStarted, Setup
from bridge_worker.usage import Watch
from bridge_worker.workdir import WorkDirectory


def main(given: Sequence[str]) -> int:
    """Print the text, and metadata or errors to standard error. Return 0: done; 1: failed; 2: refused."""
    options = arguments.try_parser().parse_args(given)
    logging.basicConfig(level=options.log_level.upper(), stream=sys.stderr, format="%(message)s")
    try:
        if not options.file.is_file():
            raise arguments.UsageError(f"{options.file}: no such file")
        typed = [spec.partition("=")[0] for spec in options.handler if "=" in spec.partition(":")[0]]
        content_type = options.content_type or (typed[0] if typed else "document")
        setup = arguments.setup_of(options, [content_type], 1)
        claim = _claim(options.file, content_type, options.task_options)
        work = WorkDirectory()
    except (arguments.UsageError, BadHandler) as error:
        print(f"bridge-worker try: {error}", file=sys.stderr)
        return 2
    try:
        return _run(setup, claim, work, options.file, options.seconds)
    finally:
        work.close()


def _claim(file: Path, content_type: str, task_options: str) -> Claim:
    fields = {"job_id": "try", "content_type": content_type, "source_name": file.name}
    try:
        return read_claim({**fields, "source_size": file.stat().st_size, "task_options": json.loads(task_options)})
    except (BadClaim, ValueError) as error:
        raise arguments.UsageError(f"--task-options: {error}") from error


def _run(setup: Setup, claim: Claim, work: WorkDirectory, file: Path, seconds: float | None) -> int:
    process = HandlerProcess(setup, work.path / "process")
    watch = Watch(lambda: [process], setup.memory, setup.processes)
    try:
        process.wait_ready(threading.Event())
        directory = process.new_job_directory()
        shutil.copyfile(file, directory / f"source{file.suffix.lower()}")
        (directory / "job.json").write_text(json.dumps(claim.for_handler()), encoding="utf-8")
        held = Held(claim)
        began = time.monotonic()
        held.deadline = began + seconds if seconds else None
        outcome = process.run(directory, held)
        took = time.monotonic() - began
        if outcome.kind != "result":
            print(f"failed after {took:.2f} s ({outcome.kind}): {outcome.text or held.reason}", file=sys.stderr)
            return 1
        result = json.loads((directory / RESULT_FILE).read_bytes())
        print(result["content"])
        print(f"done in {took:.2f} s; metadata: {json.dumps(result['metadata'])}", file=sys.stderr)
        return 0
    except NotStarted as error:
        print(f"bridge-worker try: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        watch.stop()
        process.discard()
