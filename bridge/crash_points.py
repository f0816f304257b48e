"""Named points at which a test may kill, stop or hold a process; an instrument of the tests, and otherwise off.

`reach` does nothing unless BRIDGE_CRASH_POINTS names a directory. There a file named as a point holds what is to happen
to the first process that reaches it, once: `kill`, `stop` (SIGSTOP) or `wait` (until `<point>.go` exists), and after
how many passes, as in `kill 3`. The file is then named `<point>.reached` and holds the process' ID.
"""

import os
import signal
import time
from pathlib import Path

import structlog

log = structlog.get_logger("bridge.crash_points")

ACTIONS = ("kill", "stop", "wait")
LOOK_SECONDS = 0.02

POINTS = {
    "create.before_commit": "the row of a job whose source was uploaded is written, and not committed",
    "create.after_commit": "the job is there, and Redis knows nothing of it",
    "create.after_push": "the job's ID is in Redis, and nobody has been answered",
    "batch.before_commit": "a batch's rows are written, and not committed",
    "batch.after_commit": "the batch is there, and Redis knows nothing of it",
    "batch.before_nudge": "the outcome of a batch is there, and Celery was not asked to hand it over",
    "intake.before_create": "Celery has the pipeline's message, and nothing is done",
    "intake.after_create": "the pipeline's job is there, and its message is not acknowledged",
    "claim.after_catch": "a listener's BLMOVE has moved an ID, and the dispatcher does not know it",
    "claim.after_take": "a script has moved IDs into the process' claimed lists",
    "claim.before_commit": "jobs that PostgreSQL found are claimed, and not committed",
    "claim.after_commit": "the claim is committed, and Redis still holds the IDs as taken",
    "claim.before_answer": "the claim is settled, and its worker has not been told",
    "named.after_commit": "the claim of a named job is committed, and Redis still has its ID",
    "named.before_answer": "the claim of a named job is settled, and who asked has not been told",
    "download.before_first_byte": "the claim is acknowledged, and no byte of the file is sent",
    "download.between_pieces": "a part of the file is sent",
    "heartbeat.after_commit": "the sign of life is committed, and not answered",
    "change.before_commit": "a job's change of state is written, and not committed",
    "change.after_commit": "the change is committed, and neither Redis nor Celery knows of it",
    "change.before_nudge": "Redis knows of the change, and Celery was not asked to hand over its outcome",
    "change.before_answer": "a result is accepted, and its worker has not been told",
    "result.before_naming": "the files of a result are looked at, and nothing of it is written",
    "result.after_naming": "a result is written and names its files, and is not committed",
    "checkpoint.before_naming": "an uploaded checkpoint is judged, and nothing of it is written",
    "checkpoint.after_naming": "a job names an upload as its checkpoint, and that is not committed",
    "checkpoint.before_answer": "a job's checkpoint is replaced, and its worker has not been told",
    "results.before_answer": "results that came together are judged, and their worker has not been told",
    "unserved.before_nudge": "the outcome of a job that nobody asks for is there, and Celery was not asked to send it",
    "nudge.before_send": "the nudge is in the hands of its thread, and not sent",
    "continuation.after_take": "outcomes are taken, and none is sent",
    "continuation.after_send": "an outcome is sent, and not marked as sent",
    "continuation.after_mark": "an outcome is marked as sent",
    "confirm.before_commit": "an outcome's confirmation is written, and not committed",
    "confirm.after_commit": "the confirmation is committed, and its message is not acknowledged",
    "bulk.between_batches": "a batch of a bulk cancel or retry is done, and more may follow",
    "release_due.before_commit": "due jobs are marked as mirrored, and not committed",
    "release_due.after_commit": "due jobs are marked as mirrored, and their IDs are not in Redis",
    "promote.after_commit": "jobs are raised to another priority, and their IDs stand in the lists of the old one",
    "repair.before_forget": "IDs that a dead process left are back in their lists, and in its claimed list too",
    "rebuild.before_mark": "a batch of IDs is in a list that is rebuilt, and how far that came is not noted",
    "purge.before_commit": "old jobs are deleted, and not committed",
    "purge.between_batches": "a batch of old jobs is gone, and more may follow",
    "revoke.before_commit": "a key is revoked, and not committed",
    "revoke.after_commit": "a key is revoked, and its workers still hold their jobs",
    "revoke.after_take": "a revoked key's jobs are taken back, and Redis does not know of it",
    "upload.before_object": "an object of an upload has its row, and there is no such object",
    "upload.after_object": "an object of an upload is stored, and not counted",
    "upload.before_commit": "an upload's new length is written, and not committed",
    "upload.after_commit": "what came of an upload is counted, and its sender has not been told",
    "join.before_object": "an object that is to take the place of an upload's objects has its row, and is not stored",
    "join.after_object": "it is stored, and the upload does not name it",
    "join.before_commit": "the upload names it, and that is not committed",
    "collect.before_commit": "expired uploads are deleted, and not committed",
    "collect.after_objects": "objects that no upload names are removed, and their rows are there",
    "webhooks.after_take": "a webhook is taken, and not sent",
    "webhooks.after_send": "a webhook's receiver has answered, and that is not noted",
    "webhooks.after_mark": "what became of a webhook is noted",
    "webhooks.before_call": "webhooks are due, and Celery was not asked to send them",
    "webhooks.after_resend": "a webhook is to be sent again, and Celery was not asked to",
    "resend.after_commit": "an outcome is to be sent again, and Celery was not asked to",
}

_directory: str | None = None


def check(directory: Path) -> None:
    """Check a directory of armed points. Raises ValueError if it is none, or arms an unknown point or action."""
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory")
    for file in directory.iterdir():
        if (point := ".".join(file.name.split(".")[:2])) not in POINTS:
            raise ValueError(f"{file.name} is not a crash point; bridge/crash_points.py lists them")
        action = file.read_text().split() if file.name == point else ["kill"]
        if action[:1] not in [[one] for one in ACTIONS] or not all(n.isdecimal() for n in action[1:]):
            raise ValueError(f"{file.name} must hold one of {', '.join(ACTIONS)}, and a number of passes or none")


def arm(directory: Path | None) -> None:
    """Do at each point what the directory says, from now on; None: never anything."""
    global _directory
    _directory = None if directory is None else str(directory)
    if directory is not None:
        log.warning("crash_points_armed", directory=str(directory))


def reach(point: str, having: object = True) -> None:
    """Note that this process is at a point of POINTS and has something (true) in hand."""
    if _directory is not None and having:
        _meet(os.path.join(_directory, point))


def _meet(file: str) -> None:
    try:
        with open(file) as armed:
            action, *passes = armed.read().split()
    except (FileNotFoundError, ValueError):
        return
    if passes:
        with open(f"{file}.passes", "ab") as count:  # of all processes together
            count.write(b".")
            count.flush()
            if os.fstat(count.fileno()).st_size < int(passes[0]):
                return
    mine = f"{file}.{os.getpid()}"
    try:
        os.rename(file, mine)
    except FileNotFoundError:
        return  # another process was first
    with open(mine, "w") as reached:
        reached.write(str(os.getpid()))
    os.rename(mine, f"{file}.reached")
    if action == "wait":
        while not os.path.exists(f"{file}.go"):
            time.sleep(LOOK_SECONDS)
    else:
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
