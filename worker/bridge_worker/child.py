"""The program of a handler's process: loads the handlers once, then converts one file after another.

It exchanges lines of JSON with the worker over what were its standard input and output; files and results go through
the job's directory. The lines it reads: its set-up, then `{"job": DIRECTORY}`, `{"cancel": REASON}`, `{"close": true}`.
Those it writes: `{"ready": true}` or `{"refused": TEXT}` or `{"broken": TEXT}`, then `{"progress": …}`,
`{"log": [LINE]}`, `{"checkpoint": true}` or `{"checkpoint_file": NAME, "media_type": …}` (it is in the job's directory)
and `{"done": KIND, "text": …}` for each job.
When its input ends, the worker is gone, and so is this process at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from bridge_worker import converting, keeping, kill_points, platforms, sandbox
from bridge_worker.job import Job
from bridge_worker.loading import BadHandler, Loaded
from bridge_worker.text import one_line

log = logging.getLogger("bridge_worker")
PROGRESS_SECONDS = 0.2  # progress is reported to the worker no more often than this
TEXT_LIMIT = 2000  # characters of a message


class Child:
    """The handlers, and the line to the worker."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._job: Job | None = None
        self._directory = Path()
        self._keeping = threading.Lock()  # log lines and checkpoints are sent in order
        self._progressed = threading.Event()
        self._pid = os.getpid()

    def run(self) -> int:
        """Serve until the worker says `close`; return the exit status."""
        setup = json.loads(self._incoming.readline())
        platforms.wear_leash(setup["leash"])
        platforms.limit_process(setup["memory"], setup["descriptors"])
        tempfile.tempdir = setup["temporary"]
        if setup["sandbox"]:
            named = [Path(value) for value in setup["options"].values() if os.path.isabs(value)]
            sandbox.enter(Path(setup["directory"]), named)
        logging.basicConfig(level=setup["log_level"], stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        try:
            handlers = {name: Loaded(name) for name in sorted(set(setup["handlers"].values()))}
        except BadHandler as error:
            log.debug("traceback", exc_info=True)
            self._say(refused=str(error))
            return 2
        try:
            for loaded in handlers.values():
                converting.finish(loaded.setup(setup["options"]))
        except Exception as error:
            log.debug("traceback", exc_info=True)
            self._say(broken=one_line(f"setup of {loaded.name}: {type(error).__name__}: {error}", TEXT_LIMIT))
            return 1
        by_type = {kind: handlers[name] for kind, name in setup["handlers"].items()}
        self._serve(by_type, setup)
        for loaded in handlers.values():
            with contextlib.suppress(Exception):
                converting.finish(loaded.close())
        return 0

    def _serve(self, by_type: dict[str, Loaded], setup: dict[str, Any]) -> None:
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        threading.Thread(target=self._tell_progress, name="progress", daemon=True).start()
        had_children = platforms.has_children()
        self._say(ready=True)
        while True:
            message = self._todo.get()
            if "job" not in message:
                return
            directory = Path(message["job"])
            fields = json.loads((directory / "job.json").read_bytes())
            job = Job(fields, setup["options"], self._progressed.set, directory)
            self._job, self._directory = job, directory
            platforms.limit_cpu(setup["cpu_seconds"])
            kill_points.reach("convert.before_handler", in_handlers_process=True)
            kind, text = converting.convert(by_type[job.content_type].function, job, directory)
            if os.getpid() != self._pid:
                os._exit(0)  # a handler that forked returns twice: this is the copy
            self._job = None
            self._tell_kept(job)
            kill_points.reach("convert.result_written", in_handlers_process=True)
            self._say(done=kind, text=text, leftovers=not had_children and platforms.has_children())

    def _listen(self) -> None:
        """Listen to the worker while the handler runs; kill this process group when the worker is gone."""
        for line in self._incoming:
            message = json.loads(line)
            if "cancel" in message:
                if (job := self._job) is not None:
                    with contextlib.suppress(Exception):
                        job.cancel(message["cancel"])
            else:
                self._todo.put(message)
                if "close" in message:
                    return
        platforms.kill_own_group()

    def _tell_progress(self) -> None:
        while True:
            self._progressed.wait()
            self._progressed.clear()
            if (job := self._job) is not None:
                self._say(progress=job.progress_report(), job=job.id)
                self._tell_kept(job)
            time.sleep(PROGRESS_SECONDS)

    def _tell_kept(self, job: Job) -> None:
        with self._keeping:
            while True:
                if (checkpoint := job.kept.take_checkpoint()) is not None:
                    try:
                        told = keeping.told_of(checkpoint, self._directory)
                    except OSError as error:
                        log.warning("a checkpoint is dropped, as it could not be written: %s", error)
                    else:
                        self._say(**told)
                if not (lines := job.kept.take_lines()):
                    return
                self._say(log=lines)

    def _say(self, **message: Any) -> None:
        with self._lock:
            self._outgoing.write(json.dumps(message).encode() + b"\n")
            self._outgoing.flush()


def start() -> None:
    """Reserve standard input and output for the worker; what a handler prints goes to standard error."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    sys.stdout = sys.stderr
    status = Child(incoming, outgoing).run()
    sys.stderr.flush()
    os._exit(status)  # threads and libraries of a handler must not delay the exit
