"""The worker's directory for temporary files, locked while it lives; those of dead workers are removed."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import BinaryIO

import psutil

from bridge_worker import kill_points, platforms

log = logging.getLogger(__name__)
PREFIX = "bridge-worker-"


class WorkDirectory:
    """`path` exists from the construction to `close`, and only its owner may enter it."""

    def __init__(self, place: Path | None = None) -> None:
        """Make it below `place` (default: the system's directory for temporary files). Raises OSError."""
        self._place = place or Path(tempfile.gettempdir())
        self._place.mkdir(parents=True, exist_ok=True)
        self.removed = self._remove_left_over()
        self._lock, name = self._locked()
        self.path = self._place / name
        kill_points.reach("start.locked")
        self.path.mkdir(mode=0o700)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        kill_points.reach("end.directory_removed")
        self._lock.close()
        with contextlib.suppress(OSError):
            self.path.with_suffix(".lock").unlink()

    def _locked(self) -> tuple[BinaryIO, str]:
        while True:
            name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
            file = (self._place / f"{name}.lock").open("xb")
            if platforms.try_lock(file):
                return file, name
            file.close()  # another worker's clean-up was quicker, and will remove it

    def _remove_left_over(self) -> int:
        """Remove the directories of workers that were killed: nobody holds their locks any more."""
        removed = 0
        for path in self._place.glob(f"{PREFIX}*.lock"):
            try:
                with path.open("r+b") as file:
                    if not platforms.try_lock(file):
                        continue
                    end_what_runs_on(path.with_suffix(""))
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            except OSError:
                continue  # another user's
            with contextlib.suppress(OSError):
                path.unlink()
            removed += 1
        if removed:
            log.info("removed the temporary files of %d worker(s) that did not end properly", removed)
        return removed


def end_what_runs_on(directory: Path) -> None:
    """Kill what handlers put into other sessions, and what outlived them: their temporary files are in `directory`."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if directory in Path(process.environ().get("TMPDIR", "")).parents:
                log.warning("ended process %d, which a handler had left behind", process.pid)
                process.kill()
