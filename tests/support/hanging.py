"""The bridge's Celery application before a source mount that hangs, for `celery -A tests.support.hanging`.

While the file `hanging` lies below the first source root, looking at a file whose name begins with `slow` does not come
back, and one that begins with `stuck` holds up the whole process, deaf to the soft time limit.
"""

import functools
import os
import signal
import time
from pathlib import Path

import tasks.app
from bridge.file_pool import FilePool
from bridge.jobs import source_checks, source_files
from tasks.app import app  # noqa: F401  (Celery looks for it here)

tasks.app.FilePool = functools.partial(FilePool, seconds=0.5)  # type: ignore[attr-defined, assignment]


def check_source(path: str, roots: tuple[Path, ...]) -> int:
    """As the bridge's own, once the mount is back."""
    name = Path(path).name
    while (roots[0] / "hanging").exists() and name.startswith(("slow", "stuck")):
        if name.startswith("stuck"):
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)
    return source_files.check_source(path, roots)


source_checks.check_source = check_source  # type: ignore[attr-defined, assignment]

import tasks.intake  # noqa: E402  (it takes the name from where it has just been replaced)

tasks.intake.LONGEST_DELAY_SECONDS = 2
