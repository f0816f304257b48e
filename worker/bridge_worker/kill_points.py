"""Named points in a job's life at which a test kills the worker; off outside tests.

`reach` does nothing unless BRIDGE_WORKER_KILL_AT names the point. The worker is then killed as by `kill -9`, also from
a handler's process, which then goes no further: the worker's end must end it.
"""

from __future__ import annotations

import os
import time

POINTS = {
    "start.locked": "the lock is there, and not the directory for temporary files",
    "start.process": "a handler's process runs, and has been told nothing",
    "claim.received": "a claim has come, and nothing is done about it",
    "download.begun": "the bridge answers with the file, and no byte is stored",
    "download.half": "a part of the file is stored",
    "download.done": "the whole file is stored, and no process has it",
    "convert.given": "the file lies in the process' directory, and the process does not know it",
    "convert.before_handler": "the process is about to call the handler",
    "convert.result_written": "the handler has returned, its result is stored, and the worker does not know it",
    "convert.result_read": "the worker has read the result",
    "heartbeat.before_send": "a heartbeat is due",
    "checkpoint.before_send": "a checkpoint is saved, and not sent yet",
    "upload.before_send": "a file of the result is not sent yet",
    "submit.before_send": "the result is not sent yet",
    "submit.after_answer": "the result is accepted, and the files are still there",
    "release.before_send": "the job is not given back yet",
    "end.directory_removed": "the temporary files are removed, and the lock is not",
}
_armed = os.environ.get("BRIDGE_WORKER_KILL_AT", "")


def reach(point: str, *, in_handlers_process: bool = False) -> None:
    """Kill the worker if this point, one of POINTS, is armed."""
    if _armed != point:
        return
    os.kill(os.getppid() if in_handlers_process else os.getpid(), 9)
    time.sleep(600)
