"""What a handler stores with its job on the bridge: log lines, and a checkpoint for the next attempt.

Every handler's process imports this: no HTTP here (`send_kept` sends it).
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge_worker.result_files import BadFiles, open_left
from bridge_worker.text import one_line

MOST_LINES = 1000  # waiting to be sent; beyond that the oldest are dropped
LINE_CHARACTERS = 500
TOGETHER = 20  # lines in one request and in one message, small enough for the bounds of both
CHECKPOINT_BYTES = 2**20
CHECKPOINT_FILE = "checkpoint"  # in the job's directory: from the handler's process to the worker


class Kept:
    """Lines and a checkpoint on their way; filled and emptied by different threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: collections.deque[str] = collections.deque(maxlen=MOST_LINES)
        self._checkpoint: str | None = None

    def add(self, lines: Iterable[Any]) -> None:
        """Add lines to the log."""
        with self._lock:
            self._lines.extend(one_line(str(line), LINE_CHARACTERS) for line in lines)

    def replace(self, checkpoint: str, *, unless_newer: bool = False) -> None:
        """Replace a checkpoint that was not sent yet. Raises ValueError for one that is too large."""
        if len(checkpoint.encode("utf-8", "replace")) > CHECKPOINT_BYTES:
            raise ValueError(f"a checkpoint has at most {CHECKPOINT_BYTES} bytes")
        with self._lock:
            if not (unless_newer and self._checkpoint is not None):
                self._checkpoint = checkpoint

    def take(self) -> tuple[list[str], str | None]:
        """Remove and return what to send next, at most TOGETHER lines."""
        with self._lock:
            lines = [self._lines.popleft() for _ in range(min(TOGETHER, len(self._lines)))]
            checkpoint, self._checkpoint = self._checkpoint, None
        return lines, checkpoint


def write_checkpoint(directory: Path, checkpoint: str) -> None:
    """Write a checkpoint for the worker, atomically."""
    new = directory / f"{CHECKPOINT_FILE}.new"
    new.write_text(checkpoint, encoding="utf-8", errors="replace")
    new.replace(directory / CHECKPOINT_FILE)


def read_checkpoint(directory: Path) -> str | None:
    """Read the checkpoint that the handler's process left, or None if there is no valid one."""
    try:
        with open_left(directory / CHECKPOINT_FILE) as file:
            found = file.read(CHECKPOINT_BYTES + 1)
    except (OSError, BadFiles):
        return None
    return found.decode("utf-8", "replace") if len(found) <= CHECKPOINT_BYTES else None
