"""Waiting for a condition instead of for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Longer than the latest recovery that docs/guarantees.md promises: a Celery message comes back within 130 s and 10 s.
LATEST = 150.0


def wait_until(predicate: Callable[..., T | None], what: str, seconds: float = LATEST) -> T:
    """Return the first true value of `predicate()`. Fails, saying `what` was waited for, after `seconds`.

    Fewer than LATEST are for what comes in a slower way, too, which the test rules out; never to see that it is quick.

    Its parameters all have defaults (`lambda job_id=job_id: …` in a loop), which `Callable[[], T]` would not allow.
    Looks 50 times a second at first, 10 times from the second on: a look is often a request, and takes the processor
    from what is waited for.
    """
    began = time.monotonic()
    while True:
        if value := predicate():
            return value
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; the last look gave {value!r}")
        time.sleep(min(0.1, max(0.02, waited / 10)))
