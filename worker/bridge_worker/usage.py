"""Watches what the busy handlers' processes use, with all that they started, and stops those that pass a limit."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable

import psutil

from bridge_worker import platforms
from bridge_worker.process import HandlerProcess

log = logging.getLogger(__name__)
PERIOD = 0.25  # seconds between two checks: a process that grows faster is stopped a little late


class Watch:
    """A thread that checks `processes()` every PERIOD seconds."""

    def __init__(self, processes: Callable[[], Iterable[HandlerProcess]], memory: int | None, count: int) -> None:
        """Take the limits of one job: `memory` in bytes, and `count` of processes."""
        self._processes, self._memory, self._count = processes, memory, count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD):
            try:
                self.look()
            except Exception:  # a process that ended meanwhile; the next check sees it
                log.debug("usage not read", exc_info=True)

    def look(self) -> None:
        """Check once, and notify each busy process that has passed a limit."""
        busy = [process for process in self._processes() if process.job_id]
        if not busy:
            return
        children: dict[int, list[psutil.Process]] = {}
        for found in psutil.process_iter(["ppid"]):
            children.setdefault(found.info["ppid"], []).append(found)
        for process in busy:
            family = _family(process.process.pid, children)
            if len(family) > self._count:
                process.exceed(f"the conversion started more than {self._count} processes (--max-processes)")
            elif self._memory and (used := _memory(family, self._memory)) > self._memory:
                limit = f"{self._memory / 2**20:.0f} MiB (--max-memory)"
                process.exceed(f"the conversion used {used / 2**20:.0f} MiB of memory, more than {limit}")


def _family(pid: int, children: dict[int, list[psutil.Process]]) -> list[psutil.Process]:
    family = []
    with contextlib.suppress(psutil.Error):
        family.append(psutil.Process(pid))
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        family += below
        todo += [child.pid for child in below]
    return family


def _memory(family: list[psutil.Process], limit: int) -> int:
    """Return the resident memory of a process with its descendants, shared pages counted once where it matters."""
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    if total <= limit or len(family) == 1:
        return total
    return sum(platforms.proportional_memory(process) for process in family)
