"""Runs the steps by which jobbridge_client sends and fetches files, over the worker's own connection.

That one carries the lease token, is ended from another thread when the job is no longer wanted, and reads no answer
beyond its bounds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import requests

from bridge_worker.answers import Answer, CallFailed, pieces, read_bounded
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.text import one_line
from jobbridge_client.errors import BadFile, BridgeError, OtherBytes, Refused, Unreachable
from jobbridge_client.steps import FilePart, Pause, Reply, Request, Step, Steps, Work
from jobbridge_client.steps import run as run_steps

T = TypeVar("T")
log = logging.getLogger(__name__)


class NotWanted(CallFailed):
    """The transfer has ended here, as nobody needs it any more."""


class Altered(CallFailed):
    """The bridge has other bytes than the file: they changed on the way."""


def run(
    client: BridgeClient, held: Held, what: str, steps: Steps[T], check: Callable[[float], object], *, passing: int = 0
) -> T:
    """Run the steps of an upload or a download; `what` names it in the log.

    `check` is called with each pause, in seconds, and with 0 while bytes are sent; what it raises ends the transfer.
    `passing` is a status after which another try may do better. Raises the last CallFailed, OSError, SourceRefused.
    """
    failed: CallFailed | None = None
    last: CallFailed | None = None  # how the last request failed

    def do(step: Step) -> Any:
        nonlocal failed, last
        if isinstance(step, Work):
            return step.do()
        if isinstance(step, Pause):
            check(step.seconds)
            log.warning("job=%s %s: %s; again in %.1f s", held.id, what, last or step.why, step.seconds)
            held.over.wait(step.seconds)
            return check(0.0)
        last = None
        try:
            return _request(client, held, step, check)
        except NotWanted:
            raise
        except CallFailed as error:
            failed = last = error
            if step.taker is not None:
                held.hear(error)
            if error.status is None or error.status == passing:
                raise Unreachable(str(error)) from None
            asked = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
            problem = {"code": error.code or "error", "detail": str(error)}
            return Reply(error.status, asked, json.dumps(problem).encode())

    try:
        return run_steps(steps, do)
    except OtherBytes as error:
        raise Altered(str(error)) from error
    except BadFile as error:
        raise OSError(str(error)) from error
    except BridgeError as error:
        cause = failed if isinstance(error, Refused | Unreachable) else last
        raise cause or CallFailed(one_line(str(error), 300), status=400) from error  # not what a bridge answers


def _request(client: BridgeClient, held: Held, request: Request, check: Callable[[float], object]) -> Reply:
    """Make one request. Raises CallFailed, SourceRefused, and what the taker raises."""
    data = None if request.body is None else _Body(request.body, check)
    with client.open(held.claim, request, data) as response:
        reply = Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()})
        if request.taker is None:
            body = read_bounded(response, request.limit, request.seconds)
            if reply.status != 204 and not body.lstrip().startswith(b"{"):
                raise CallFailed(f"what answered is not the bridge ({reply.status})")  # a proxy's page, perhaps
            return replace(reply, body=body)
        if not request.away:  # another server knows nothing of the job
            held.hear(Answer({}, reply.headers.get("x-job-status")))
        if reply.status == 307:
            return reply
        held.on_over(lambda: _end_reading(response))
        try:
            request.taker.begin(reply)
            count = 0
            for piece in pieces(response):
                request.taker.take(piece)
                count += len(piece)
        finally:
            held.on_over(lambda: None)
    if length_of(reply) not in (None, count):
        raise CallFailed(f"broken off after {count} of {length_of(reply)} bytes")
    return reply


def length_of(reply: Reply) -> int | None:
    """Return how many bytes an answer should have, if it tells that."""
    length = reply.headers.get("content-length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else None


class _Body:
    """A part of a file as requests sends it, which asks for the length and then for the bytes."""

    def __init__(self, part: FilePart, check: Callable[[float], object]) -> None:
        self._part, self._check = part, check

    def __len__(self) -> int:
        return self._part.length

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._part.pieces():
            self._check(0.0)
            yield piece


def _end_reading(response: requests.Response) -> None:
    """Wake the thread that waits for the next byte of this answer; called from another thread."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        response.raw.shutdown()
