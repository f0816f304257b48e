"""What this worker reports about itself and its machine, for operators of many workers."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from typing import Any

import psutil

from bridge_worker import __version__, platforms
from bridge_worker.text import one_line

PERIOD = 60.0  # seconds between two reports
MOST = 100  # characters of a text that the bridge takes
GPU_SECONDS = 10.0  # for nvidia-smi, which is slow where no driver keeps the GPU awake


class Facts:
    """Due once a minute, with whichever call comes first. Safe to share between threads."""

    def __init__(self, period: float = PERIOD) -> None:
        """Inspect the machine. Runs a program, so construct it before handlers' processes exist."""
        self._period, self._told_at = period, float("-inf")
        memory = platforms.total_memory()
        what = f"{platform.platform(terse=True)} {platform.machine()}, Python {platform.python_version()}"
        self._fixed: dict[str, Any] = {
            "version": __version__, "host": socket.gethostname(), "platform": what, "memory": memory,
        }  # fmt: skip
        if found := gpus():
            self._fixed["gpu"] = found

    def due(self) -> dict[str, Any]:
        """Return the fields to send with the next call; none while the last report is recent."""
        if time.monotonic() - self._told_at < self._period:
            return {}
        free = min(int(psutil.virtual_memory().available), self._fixed["memory"])
        facts = self._fixed | {"memory_free": free}
        return {name: one_line(value, MOST) if isinstance(value, str) else value for name, value in facts.items()}

    def told(self, facts: dict[str, Any]) -> None:
        """Note that the bridge has taken them."""
        if facts:
            self._told_at = time.monotonic()


def gpus() -> str:
    """Return the NVIDIA GPUs with their memory, as nvidia-smi names them; empty without GPUs or nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    environment = {name: value for name, value in os.environ.items() if name != "BRIDGE_KEY"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=GPU_SECONDS, check=False, stdin=subprocess.DEVNULL, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.decode(errors="replace").split("\n") if done.returncode == 0 else []
    return one_line("; ".join(line.strip() for line in lines if line.strip()), MOST)
