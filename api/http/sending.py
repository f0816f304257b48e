"""Sends large documents in pieces, and bounds what a process holds for its clients.

An answer above LARGE_BYTES counts from its creation until its last byte is passed to the kernel or its connection has
ended (api/http/gunicorn_response.py bounds that time). One with documents that are read while it is sent counts as
STREAM_BYTES, about as much as it holds at a time. Beyond the budget (bridge/admission/limits.py) a request gets a 429.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import gevent
import structlog
from flask import Response, g, request
from sqlalchemy.exc import SQLAlchemyError

from api.http.access import caller, limits, runtime
from api.http.incoming import TURN_SECONDS
from api.http.problems import problem
from bridge.admission.byte_budget import Budget, Whose
from bridge.caller import Caller
from bridge.errors import NotFound, TooMany, Unavailable
from bridge.jobs.documents import Unread, UnreadFile, as_json
from bridge.jobs.documents import as_text as as_stored

log = structlog.get_logger("api")

T = TypeVar("T")

LARGE_BYTES = 16 * 1024  # smaller answers are in the kernel's buffers, not in the process
STREAM_BYTES = 1024 * 1024
POLL, RESULT = "work.poll", "work.submit_result"
TOO_MANY = "Too many large answers to this key, its tenant, or in all, are not read yet: read them, or wait."
AGAIN_SECONDS = 5


def in_pieces(parts: Sequence[bytes], unread: Sequence[Unread | UnreadFile]) -> Iterator[bytes]:
    """Yield the parts of an answer, and between each two a document that is read then."""
    in_turn = partial(limits().reading_documents.taken, caller().whose, 1)
    return _in_pieces(parts, unread, partial(as_json, runtime(), in_turn=in_turn))


def _in_pieces(parts: Sequence[bytes], unread: Sequence[T], read: Callable[[T], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield the parts with a document between each two. Where one cannot be read, the answer breaks off."""
    try:
        yield parts[0]
        for document, part in zip(unread, parts[1:], strict=True):
            yield from read(document)
            yield part
    except (NotFound, Unavailable, SQLAlchemyError, UnicodeDecodeError) as error:
        log.warning("answer_aborted", error=type(error).__name__)
        # gunicorn takes this for a lost client and closes the connection.
        raise BrokenPipeError(errno.EPIPE, "the rest of the answer cannot be read") from None


def as_text(unread: Unread) -> Iterator[bytes]:
    """Yield a document's text, read while it is sent. Where it cannot be read further, the answer breaks off."""
    in_turn = partial(limits().reading_documents.taken, caller().whose, 1)
    return _in_pieces((b"", b""), (unread,), partial(as_stored, runtime(), in_turn=in_turn))


def refuse_without_room(answers: Budget, asks: Caller) -> None:
    """Raise TooMany where this key may get no large answer at the moment."""
    if not answers.room(asks.whose):
        raise TooMany(TOO_MANY, retry_after=AGAIN_SECONDS)


def counted(response: Response) -> Response:
    """Count a large answer until it is sent and return it, or a 429 in its place where there is no room for it."""
    size = STREAM_BYTES if response.is_streamed else (response.content_length or 0)
    if size <= LARGE_BYTES or response.direct_passthrough or request.method == "HEAD":
        return response
    held = _room(g.caller.whose if "caller" in g else (None, None), size, response.is_streamed)
    if held is not None:
        response.call_on_close(held.close)
        return response
    response.close()
    refusal = problem(429, TOO_MANY)
    refusal.headers["Retry-After"] = str(AGAIN_SECONDS)
    return refusal


def _room(whose: Whose, size: int, streamed: bool) -> ExitStack | None:
    """Take room for an answer until it is closed; None where there is none.

    The answer to a change gets it in any case. Claimed jobs with unread documents wait for it: where it does not come,
    the worker repeats its claim or the jobs go back.
    """
    answers, held = limits().answers, ExitStack()
    claims = request.endpoint == POLL or (request.endpoint == RESULT and "next" in request.args)
    if claims and streamed:
        with gevent.Timeout(TURN_SECONDS, False):
            held.enter_context(answers.taken(whose, size))
            return held
        return None
    if request.method != "GET" or claims:
        answers.add(whose, size)
    elif not answers.take(whose, size):
        return None
    held.callback(answers.give_back, whose, size)
    return held
