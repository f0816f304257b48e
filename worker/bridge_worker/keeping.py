"""What a handler stores with its job on the bridge: log lines, and a checkpoint for the next attempt.

Every handler's process imports this: no HTTP here (`send_kept` sends it).
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_worker.result_files import BadFiles, open_left, taken
from bridge_worker.text import one_line

log = logging.getLogger(__name__)
MOST_LINES = 1000  # waiting to be sent; beyond that the oldest are dropped
LINE_CHARACTERS = 500
TOGETHER = 20  # lines in one request and in one message, small enough for the bounds of both
CHECKPOINT_BYTES = 2**20  # of a text that is sent in a call; anything else is uploaded
# In the job's directory, from the handler's process to the worker: a text, what is to be uploaded, and the other way.
CHECKPOINT_FILE, LEFT_FILE, EARLIER_FILE = "checkpoint", re.compile("checkpoint-[0-9a-f]{32}"), "earlier-checkpoint"
TEXT_TYPE, BYTES_TYPE = "text/plain", "application/octet-stream"


@dataclass
class CheckpointFile:
    """A checkpoint that is to be uploaded."""

    path: Path
    media_type: str
    upload: str = ""  # the ID of its upload, once that was announced to the bridge


class Kept:
    """Lines and a checkpoint on their way; filled and emptied by different threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: collections.deque[str] = collections.deque(maxlen=MOST_LINES)
        self._checkpoint: str | CheckpointFile | None = None
        self._begun: CheckpointFile | None = None
        self.takes_files = True  # until the bridge refuses an upload as a checkpoint
        self.sending = threading.Lock()  # held by who sends checkpoints: they arrive in their order

    def add(self, lines: Iterable[Any]) -> None:
        """Add lines to the log."""
        with self._lock:
            self._lines.extend(one_line(str(line), LINE_CHARACTERS) for line in lines)

    def replace(self, checkpoint: str | CheckpointFile) -> None:
        """Replace a checkpoint that was not sent yet."""
        with self._lock:
            before, self._checkpoint = self._checkpoint, checkpoint
        remove(before)

    def put_back(self, checkpoint: str | CheckpointFile) -> None:
        """Keep a checkpoint that was not sent, unless there is a newer one; an upload that was begun comes first."""
        with self._lock:
            if isinstance(checkpoint, CheckpointFile) and checkpoint.upload:
                self._begun = checkpoint
                return
            if self._checkpoint is None:
                self._checkpoint = checkpoint
                return
        remove(checkpoint)

    def take_lines(self) -> list[str]:
        """Remove and return the lines to send next, at most TOGETHER."""
        with self._lock:
            return [self._lines.popleft() for _ in range(min(TOGETHER, len(self._lines)))]

    def take_checkpoint(self) -> str | CheckpointFile | None:
        """Remove and return the checkpoint to send next, if there is one."""
        with self._lock:
            if self._begun is not None:
                begun, self._begun = self._begun, None
                return begun
            checkpoint, self._checkpoint = self._checkpoint, None
            return checkpoint

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to send."""
        return self._begun is not None or self._checkpoint is not None


def remove(checkpoint: str | CheckpointFile | None) -> None:
    """Remove the file of a checkpoint that is not needed any more."""
    if isinstance(checkpoint, CheckpointFile):
        with contextlib.suppress(OSError):
            checkpoint.path.unlink()


def checkpoint_of(what: object, directory: Path) -> str | CheckpointFile:
    """Return a handler's checkpoint as it is now: a short text itself, anything else as a file in `directory`.

    Raises TypeError, OSError.
    """
    text = what.encode("utf-8", "replace") if isinstance(what, str) else None
    if isinstance(what, str) and text is not None and len(text) <= CHECKPOINT_BYTES:
        return what
    place = directory / f"checkpoint-{uuid.uuid4().hex}"
    content = what if text is None else text
    try:
        if isinstance(content, (bytes, bytearray, memoryview)):
            place.write_bytes(content)
        elif isinstance(content, os.PathLike):
            shutil.copyfile(content, place)
        else:
            raise TypeError(f"a checkpoint is a text, bytes or a path, not {type(what).__name__}")
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return CheckpointFile(place, BYTES_TYPE if text is None else TEXT_TYPE)


def write_checkpoint(directory: Path, checkpoint: str) -> None:
    """Write a checkpoint for the worker, atomically."""
    new = directory / f"{CHECKPOINT_FILE}.new"
    new.write_bytes(checkpoint.encode("utf-8", "replace"))  # with its line ends as they are
    new.replace(directory / CHECKPOINT_FILE)


def told_of(checkpoint: str | CheckpointFile, directory: Path) -> dict[str, Any]:
    """Return the message that tells the worker of a checkpoint; a text is first written to the job's directory."""
    if isinstance(checkpoint, CheckpointFile):
        return {"checkpoint_file": checkpoint.path.name, "media_type": checkpoint.media_type}
    write_checkpoint(directory, checkpoint)
    return {"checkpoint": True}


def take_left(
    message: Mapping[str, Any], directory: Path, into: Path | None, job_id: str = "-"
) -> str | CheckpointFile | None:
    """Return the checkpoint that a message of the handler's process is about; None if there is no valid one.

    A file is moved to `into`, where that process cannot replace it.
    """
    name = message.get("checkpoint_file")
    try:
        if message.get("checkpoint"):
            with open_left(directory / CHECKPOINT_FILE) as file:
                found = file.read(CHECKPOINT_BYTES + 1)
            return found.decode("utf-8", "replace") if len(found) <= CHECKPOINT_BYTES else None
        if into is not None and isinstance(name, str) and LEFT_FILE.fullmatch(name):
            is_text = message.get("media_type") == TEXT_TYPE
            return CheckpointFile(taken(directory / name, into), TEXT_TYPE if is_text else BYTES_TYPE)
    except (OSError, BadFiles) as error:
        log.warning("job=%s a checkpoint is dropped, as it could not be taken: %s", job_id, error)
    return None
