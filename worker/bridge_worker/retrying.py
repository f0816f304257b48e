"""Which calls are repeated, and when: exponential backoff with jitter, never sooner than Retry-After."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from bridge_worker.answers import CallFailed

log = logging.getLogger(__name__)
LONGEST_WAIT = 30.0  # seconds between two tries
T = TypeVar("T")


def call(
    what: str,
    function: Callable[[], T],
    *,
    give_up: threading.Event | None = None,
    patience: float | None = None,
) -> T:
    """Call `function` until it succeeds or fails for good; `what` names it in the log.

    Ends early when `give_up` is set or after `patience` seconds. Raises the last CallFailed.
    """
    backoff = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT)

    def delay(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, CallFailed) and error.retry_after else 0.0
        return max(float(backoff(state)), asked)

    def warn(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("%s: %s; try %d again in %.1f s", what, error, state.attempt_number + 1, state.upcoming_sleep)

    stop: tenacity.stop.stop_base = tenacity.stop_never
    if patience is not None:
        stop = tenacity.stop_after_delay(patience)
    if give_up is not None:
        stop = tenacity.stop_any(stop, tenacity.stop_when_event_set(give_up))
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, CallFailed) and e.retryable),
        wait=delay,
        stop=stop,
        before_sleep=warn,
        reraise=True,
        sleep=tenacity.sleep_using_event(give_up) if give_up is not None else tenacity.nap.sleep,
    )
    return retrying(function)
