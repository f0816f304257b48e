"""Submits results. Those that become ready while others are being sent go together, in one request."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from bridge_worker.answers import Answer, CallFailed
from bridge_worker.claim import Claim
from bridge_worker.client import BridgeClient

MOST = 100  # results that the bridge takes in one request
MOST_BYTES = 2**20  # of one request
LARGE = 2**16  # bytes of a result that is sent alone, so that no other waits for it
UNKNOWN_ROUTE = (404, 405)


@dataclass(eq=False)
class _Ready:
    """A result, and the bridge's answer to it."""

    claim: Claim
    data: bytes
    outcome: Answer | CallFailed | None = None


class Results:
    """The results of all slots. Safe to share between threads; a single result is sent at once."""

    def __init__(self, client: BridgeClient) -> None:
        self._client = client
        self._ready: list[_Ready] = []
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._together = True  # until the bridge turns out to have no such route

    def submit(self, claim: Claim, data: bytes, *, files: bool = False) -> Answer:
        """Send a result, already encoded as a JSON object. Safe to repeat. Raises CallFailed.

        One that names `files` is sent alone: the bridge may read gigabytes before it answers.
        """
        if files or len(data) > LARGE or not self._together:
            return self._client.submit(claim, data, files=files)
        mine = _Ready(claim, data)
        with self._lock:
            self._ready.append(mine)
        with self._sending:
            while mine.outcome is None:
                self._send(self._take())
        if isinstance(mine.outcome, CallFailed):
            raise mine.outcome
        return mine.outcome

    def waiting(self) -> int:
        """Return how many results wait while others are being sent."""
        with self._lock:
            return len(self._ready)

    def _take(self) -> list[_Ready]:
        with self._lock:
            size = count = 0
            for one in self._ready[:MOST]:
                size += len(one.data)
                if count and size > MOST_BYTES:
                    break
                count += 1
            taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    def _send(self, batch: list[_Ready]) -> None:
        """Send these; give each its outcome whatever happens, since a thread waits for it."""
        try:
            if len(batch) == 1:
                self._send_alone(batch[0])
                return
            try:
                outcomes = self._client.submit_many([(one.claim, one.data) for one in batch])
            except CallFailed as error:
                self._together = self._together and error.status not in UNKNOWN_ROUTE
                for one in batch:
                    if error.retryable or error.status in (401, 403):
                        one.outcome = error
                    else:  # of this request, not of each of its results
                        self._send_alone(one)
                return
            for one, outcome in zip(batch, outcomes, strict=True):
                one.outcome = outcome
        except BaseException as error:
            for one in batch:
                one.outcome = one.outcome or CallFailed(f"the worker broke: {type(error).__name__}")
            raise

    def _send_alone(self, one: _Ready) -> None:
        try:
            one.outcome = self._client.submit(one.claim, one.data)
        except CallFailed as error:
            one.outcome = error
