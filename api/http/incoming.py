"""The bytes of a body, read within bounds of time and memory.

A large body is received into an unnamed file, however slowly it comes, and read into memory, in turns, only once it is
complete: many unfinished bodies cost a descriptor each, not their size.
"""

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import gevent
from flask import Request, g
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from api.http.access import caller, limits
from bridge.errors import TooMany

BODY_SECONDS = 300  # a body that takes longer to arrive is refused
TURN_SECONDS = 60  # the wait for room in memory
LARGE_BYTES = 64 * 1024
IN_MEMORY = 256 * 1024  # of a body that is still arriving; beyond it, a file
VALUE_BYTES = 24  # that a value counts beside its text: it takes 60 to 100, and a byte of text is held about four times
HEAVY_BYTES = 256 * 1024  # of weight; what is lighter, as all is that has a few KiB, is in memory without a turn
_CHUNK = 65536
_TOKEN = re.compile(rb'"lease_token"\s{0,8}:\s{0,8}"([!-~]{1,100}?)"')


class Unread(HTTPException):
    """A body that was not read to its end; `begun` is what was read of it."""

    def __init__(self, description: str | None = None, begun: IO[bytes] | None = None) -> None:
        super().__init__(description)
        self._begun = begun

    def token(self, incoming: Request) -> str | None:
        """Return the lease_token that the body names, wherever it stands. What comes before it is read and dropped.

        Raises 400, 408.
        """
        return _token_in(self._pieces(incoming))

    def _pieces(self, incoming: Request) -> Iterator[bytes]:
        if self._begun is not None:
            self._begun.seek(0)
            yield from iter(lambda: self._begun.read(_CHUNK) if self._begun else b"", b"")
        with arriving():
            while piece := incoming.environ["wsgi.input"].read(_CHUNK):
                yield piece
                gevent.sleep(0)  # a client that sends quickly does not keep the others waiting


class Oversized(Unread, RequestEntityTooLarge):
    """The body is larger than BRIDGE_MAX_BODY_BYTES allows."""


class NoJsonBody(Unread, UnsupportedMediaType):
    """The body's type or encoding is not supported."""


class Malformed(BadRequest):
    """The whole body is there, and is not JSON; `token` is the lease_token that it seems to name."""

    def __init__(self, description: str, raw: bytes) -> None:
        super().__init__(description)
        self.token = _token_in(_slices(raw))


def _slices(raw: bytes) -> Iterator[bytes]:
    for start in range(0, len(raw), _CHUNK):
        yield raw[start : start + _CHUNK]
        gevent.sleep(0)  # the largest takes a tenth of a second in all


def _token_in(pieces: Iterator[bytes]) -> str | None:
    """Return the lease_token in the pieces, or None. Quotes in JSON strings are escaped: no result's text matches."""
    window = b""
    for piece in pieces:
        window = window[-256:] + piece
        if found := _TOKEN.search(window):
            return found[1].decode()
    return None


def weight(text: bytes) -> int:
    """Return what a JSON text, or a piece of one, takes of the budget for bodies: its bytes and its values.

    Each value but the first of a list or an object follows a comma, and a list or an object is one itself: two bytes of
    text can make a list of seventy.
    """
    return len(text) + VALUE_BYTES * sum(map(text.count, (b",", b"[", b"{")))


def read_body(incoming: Request) -> bytes:
    """Return the whole body, in memory until the request is answered. Raises 400, 408, Oversized (413), TooMany."""
    # The application's limit is a byte higher: Werkzeug cuts a chunked body at it instead of refusing it.
    most = incoming.max_content_length or 0
    try:
        if "Transfer-Encoding" not in incoming.headers and (incoming.content_length or 0) <= LARGE_BYTES:
            with arriving():
                raw = incoming.get_data(cache=False)  # a request that waits for its answer must not hold its body
            _whole(incoming, len(raw))
            if len(raw) == most:
                raise Oversized
            if (heavy := weight(raw)) > HEAVY_BYTES:
                _take_turn(heavy)
            return raw
        with limits().reading.taken(caller().whose, 1):
            file, size, heavy = _stored(incoming)
    except RequestEntityTooLarge as refusal:
        raise refusal if isinstance(refusal, Oversized) else Oversized() from None
    _whole(incoming, size)
    if size == most:
        raise Oversized(begun=file)
    _take_turn(heavy)
    file.seek(0)
    return file.read()


def _take_turn(heavy: int) -> None:
    """Wait for room in memory for a body of this weight, until the request is answered. Raises TooMany."""
    with gevent.Timeout(TURN_SECONDS, TooMany("Too many large bodies are being read.", retry_after=5)):
        _until_answered().enter_context(limits().bodies.taken(caller().whose, heavy))


def _stored(incoming: Request) -> tuple[IO[bytes], int, int]:
    """Return the body as a file, which is closed with the request, its size in bytes and its weight."""
    file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    _until_answered().enter_context(file)
    size = heavy = 0
    try:
        with arriving():
            while piece := incoming.stream.read(_CHUNK):
                file.write(piece)
                size += len(piece)
                heavy += weight(piece)
                gevent.sleep(0)  # what has arrived is read without a wait: several such bodies took turns of 15 MB
    except RequestEntityTooLarge:
        raise Oversized(begun=file) from None
    return file, size, heavy


def _whole(incoming: Request, size: int) -> None:
    """Raise 400 where a body ended before its promised length: what came may be JSON all the same."""
    if size < (incoming.content_length or 0):
        raise BadRequest("The body is broken: it ended early.")


def _until_answered() -> ExitStack:
    """Return the stack that is closed with the request (api/create_app.py)."""
    if "until_answered" not in g:
        g.until_answered = ExitStack()
    stack: ExitStack = g.until_answered
    return stack


def end_request(_: BaseException | None = None) -> None:
    """Free what the body of a request took."""
    if "until_answered" in g:
        g.until_answered.close()


@contextmanager
def arriving() -> Iterator[None]:
    """Bound the reading of a body inside. Raises 400 where it is broken, 408 where it takes too long."""
    try:
        with gevent.Timeout(BODY_SECONDS, RequestTimeout()):
            yield
    except (ParseException, NoMoreData):
        raise BadRequest("The body is broken: its chunks are malformed, or it ended early.") from None


class Resumed:
    """A body as a stream: what was read of it already, then the rest."""

    def __init__(self, come: io.BytesIO, rest: Any) -> None:
        self._come, self._rest, self._begun = come, rest, False

    def read(self, size: int = -1) -> bytes:
        if not self._begun:
            self._begun = True
            self._come.seek(0)
        return self._come.read(size) or bytes(self._rest.read(size))
