"""Sends heartbeats for a job from a separate thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from bridge_worker import kill_points
from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.send_kept import send_checkpoint_aside, send_log

log = logging.getLogger(__name__)
LONGEST_INTERVAL = 20.0  # seconds: a third of the default window in which a claim must be acknowledged
PROGRESS_INTERVAL = 2.0  # seconds: progress is sent no more often than this
AFTER_FAILURE = 1.0  # seconds until a failed heartbeat is sent again, doubled each time


@contextlib.contextmanager
def beating(client: BridgeClient, held: Held, lease: int) -> Iterator[None]:
    """Send heartbeats every third of `lease` seconds while the block runs."""
    stop = threading.Event()
    interval = min(lease / 3, LONGEST_INTERVAL)
    thread = threading.Thread(target=_beat, args=(client, held, interval, stop), name=f"beat-{held.id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        held.changed.set()
        # A hanging heartbeat must not delay the next job; the thread ends by itself.
        thread.join(timeout=1)


def _beat(client: BridgeClient, held: Held, interval: float, stop: threading.Event) -> None:
    delay, failures = interval, 0
    while True:
        _pause(held, stop, delay)
        if stop.is_set() or held.over.is_set():
            return
        kill_points.reach("heartbeat.before_send")
        try:
            answer = client.heartbeat(held.claim, held.report())
            failures, delay = 0, interval
            held.hear(answer)
            send_log(client, held)
            send_checkpoint_aside(client, held)
        except CallFailed as error:
            held.hear(error)
            if error.retryable:
                failures += 1
                delay = max(min(interval, AFTER_FAILURE * 2 ** min(failures - 1, 5)), error.retry_after or 0)
                log.warning("job=%s heartbeat: %s", held.id, error)
                continue
            if not held.over.is_set() and not stop.is_set() and not held.submitting.is_set():
                # An older bridge has no such route; the result will tell whether the job is still ours.
                log.info("job=%s heartbeats end: %s", held.id, error)
            return


def _pause(held: Held, stop: threading.Event, seconds: float) -> None:
    """Wait for the next beat; sooner, but not at once, when the handler reported progress."""
    end = time.monotonic() + seconds
    if not stop.wait(min(seconds, PROGRESS_INTERVAL)):
        held.changed.wait(max(0.0, end - time.monotonic()))
