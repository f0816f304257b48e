"""Wait for what a test expects of threads and processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LATEST = 90  # seconds


def until(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", seconds: float = LATEST, *, pause: float = 0.01
) -> Any:
    """Return what `condition` returns once it is true; `what` says what did not come."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(pause)
    return value
