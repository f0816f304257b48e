"""Reads the bridge's answers safely: bounded, not decoded, of the right types."""

from __future__ import annotations

import email.utils
import http.client
import itertools
import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
import urllib3.exceptions

from bridge_worker.reasons import why_no_answer
from bridge_worker.text import one_line

PIECE = 65536  # bytes that are read at once
TOKEN_LIMIT = 1_000_000  # strings, commas and brackets of an answer: two bytes of JSON can become a hundred of memory
RETRY_AFTER_LIMIT = 3600.0  # seconds, the longest pause that the bridge itself asks for
_TOKEN = re.compile(rb'"[^"]*"?|[,\[{]')


class CallFailed(Exception):
    """A call that did not succeed. `status` is None when no answer came; `retry_after` is in seconds.

    `drain`: an operator asks this worker to end.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str = "",
        job_status: str | None = None,
        retry_after: float | None = None,
        drain: bool = False,
    ) -> None:
        super().__init__(detail)
        self.drain = drain
        self.status, self.code, self.job_status, self.retry_after = status, code, job_status, retry_after

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later: no answer, 429, or an error of the server."""
        return self.status is None or self.status == 429 or self.status >= 500


@dataclass(frozen=True)
class Answer:
    """A successful answer: its JSON object and what it says about the job's state."""

    body: dict[str, Any]
    job_status: str | None
    date: str | None = None


def encoded(response: requests.Response) -> str:
    """Return the answer's Content-Encoding, which was not asked for, or an empty text."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if encoding == "identity" else one_line(encoding, 50)


def json_object(response: requests.Response, limit: int, seconds: float) -> dict[str, Any]:
    """Read an answer that is a JSON object of at most `limit` bytes and TOKEN_LIMIT tokens. Raises CallFailed."""
    data = read_bounded(response, limit, seconds)
    if _has_too_many_tokens(data):
        raise CallFailed(f"the answer has more than {TOKEN_LIMIT} strings, commas and brackets")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CallFailed("the answer is not JSON") from error
    if not isinstance(body, dict):
        raise CallFailed("the answer is not a JSON object")
    return body


def _has_too_many_tokens(data: bytes) -> bool:
    """Return whether a JSON text would take too much memory once it is parsed."""
    if sum(data.count(token) for token in (b",", b"[", b"{", b'"')) <= TOKEN_LIMIT:
        return False
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # a remaining quote begins or ends a string
    return next(itertools.islice(_TOKEN.finditer(plain), TOKEN_LIMIT, None), None) is not None


def read_bounded(response: requests.Response, limit: int, seconds: float) -> bytes:
    """Read an answer of at most `limit` bytes. Raises CallFailed, also for one that is encoded or too slow."""
    if encoding := encoded(response):
        raise CallFailed(f"the answer has Content-Encoding {encoding}, which was not asked for")
    until = time.monotonic() + seconds + 60
    data = bytearray()
    for piece in pieces(response):
        data += piece
        if len(data) > limit:
            raise CallFailed(f"the answer has more than {limit} bytes")
        if time.monotonic() > until:
            raise CallFailed("the answer does not come to its end")
    return bytes(data)


def pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield an answer's bytes as they come, however few, never decoded. Raises CallFailed where it breaks off."""
    while True:
        try:
            piece = response.raw.read1(PIECE, decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise CallFailed(f"the answer broke off: {why_no_answer(error)}") from error
        if not piece:
            return
        yield piece


def text_of(value: Any, limit: int) -> str:
    """Return a member of an answer that should be text as one line, or "" if it is not text."""
    return one_line(value, limit) if isinstance(value, str) else ""


def refusal(response: requests.Response) -> CallFailed:
    """Turn an answer that is not a success into an error with the bridge's code and detail."""
    try:
        problem = json_object(response, 65536, 10)
    except CallFailed:
        problem = {}
    detail = text_of(problem.get("detail"), 300) or text_of(response.reason, 300)
    if response.is_redirect:
        detail = f"redirected to {one_line(response.headers['Location'], 200)}: use that address as the URL"
    request_id = response.headers.get("X-Request-ID", "-")
    return CallFailed(
        f"{response.status_code} {detail} (request {one_line(request_id, 128)})",
        status=response.status_code,
        code=text_of(problem.get("code"), 50),
        job_status=response.headers.get("X-Job-Status"),
        retry_after=_seconds(response.headers.get("Retry-After")),
        drain=problem.get("drain") is True,
    )


def outcomes_of(body: dict[str, Any], count: int) -> list[Answer | CallFailed]:
    """Read the outcomes of `count` results that were sent together. Raises CallFailed."""
    told = body.get("results")
    if not isinstance(told, list) or len(told) != count or not all(isinstance(one, dict) for one in told):
        raise CallFailed(f"the answer to {count} results was not understood")
    return [_outcome(one) for one in told]


def _outcome(told: dict[str, Any]) -> Answer | CallFailed:
    job_status, problem = text_of(told.get("status"), 50) or None, told.get("problem")
    if problem is None:
        return Answer({"status": job_status}, job_status)
    problem = problem if isinstance(problem, dict) else {}
    status = problem.get("status")
    status = status if type(status) is int and 400 <= status <= 599 else None
    detail = f"{status} {text_of(problem.get('detail'), 300)}"
    return CallFailed(detail, status=status, code=text_of(problem.get("code"), 50), job_status=job_status)


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date, as 0 to RETRY_AFTER_LIMIT; None when absent or unreadable."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(RETRY_AFTER_LIMIT, max(0.0, seconds))
