"""Reads the bridge's answers: JSON objects, refusals, and how long to wait before the next try."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from typing import Any

from jobbridge_client.errors import BadAnswer, Refused, Unreachable, kind_of
from jobbridge_client.steps import Pause, Reply, Request, Steps, send

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds


def passes(status: int) -> bool:
    """Return whether a refusal may pass, so that the request is worth repeating."""
    return status in (408, 429) or status >= 500


def document(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of a success. Raises Refused, BadAnswer."""
    if not 200 <= reply.status < 300:
        raise refusal(reply)
    return json_object(reply)


def json_object(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises BadAnswer."""
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadAnswer(f"what answered is not the bridge ({reply.status})")
    return found


def refusal(reply: Reply) -> Refused | BadAnswer:
    """Turn an answer that is not a success into its exception."""
    if 300 <= reply.status < 400:
        return BadAnswer(f"the address redirects to {reply.headers.get('location', '?')[:200]!r}: use that one")
    try:
        problem = json_object(reply)
    except BadAnswer:
        problem = {}
    code, detail, fields = problem.get("code"), problem.get("detail"), problem.get("errors")
    return kind_of(reply.status)(
        reply.status,
        code if isinstance(code, str) else "error",
        detail if isinstance(detail, str) else "no reason was given",
        fields=fields if isinstance(fields, dict) else None,
        retry_after=retry_after(reply),
        request_id=reply.headers.get("x-request-id"),
    )


def retry_after(reply: Reply) -> float | None:
    """Return Retry-After in seconds, the only form that the bridge uses."""
    try:
        return min(max(0.0, float(reply.headers["retry-after"])), 86400.0)
    except (KeyError, ValueError):
        return None


class Pauses:
    """The pauses between tries: growing, with jitter, never shorter than Retry-After."""

    def __init__(self, patience: float) -> None:
        """Take the patience: the seconds from the first failure on for which to try again."""
        self._patience, self._next, self._until = patience, FIRST_PAUSE, 0.0

    def again(self) -> None:
        """Start over after some progress."""
        self._next, self._until = FIRST_PAUSE, 0.0

    def next(self, asked: float | None) -> float | None:
        """Return the next pause in seconds, or None if it would exceed the patience."""
        now = time.monotonic()
        self._until = self._until or now + self._patience
        pause = max(asked or 0.0, self._next) * random.uniform(1.0, 1.25)
        self._next = min(self._next * 2, LONGEST_PAUSE)
        return pause if now + pause <= self._until else None


def patient(request: Request, patience: float) -> Steps[Reply]:
    """Make a repeatable request until the answer is anything but a passing refusal.

    Raises Unreachable, BadAnswer; Refused if it is refused for longer than `patience` seconds.
    """
    pauses, repeated = Pauses(patience), False
    while True:
        asked = None
        failed: Unreachable | Refused | BadAnswer
        try:
            reply = yield from send(request)
        except Unreachable as error:
            failed, repeated = error, True
        else:
            if not passes(reply.status):
                return replace(reply, repeated=repeated)
            failed, asked = refusal(reply), retry_after(reply)
            repeated = repeated or reply.status not in (408, 429)
        pause = pauses.next(asked)
        if pause is None:
            raise failed
        yield Pause(pause, failed)
