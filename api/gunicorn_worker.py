"""gunicorn's gevent worker, which stops without waiting for clients that ask for nothing, and says little."""

import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import gevent
import orjson
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import write_nonblock
from gunicorn.workers.ggevent import GeventWorker

# What is read of a body that nobody wanted, so that a client which sends all before it listens hears the answer.
DRAIN_BYTES = 32 * 1024 * 1024
DRAIN_SECONDS = 10.0
REFUSALS: list[tuple[type[Exception], int, str, str]] = [
    (LimitRequestLine, 414, "URI Too Long", "The request line is too long."),
    (LimitRequestHeaders, 431, "Request Header Fields Too Large", "The header fields are too large or too many."),
    # RFC 9112 would have 501; a 5xx says that the server is at fault, and asks for a repetition.
    (UnsupportedTransferCoding, 400, "Bad Request", "This Transfer-Encoding is not supported; send chunked."),
    (ExpectationFailed, 417, "Expectation Failed", "The only expectation that is met is 100-continue."),
    (ParseException, 400, "Bad Request", "This is no valid HTTP request."),
]


class ErrorLogger(Logger):
    """Keeps no access log: the application says what happened, and a line that nobody reads costs a twentieth."""

    access_log_enabled = False


class Worker(GeventWorker):
    """When told to stop, it lets go of the connections on which no request is under way.

    gunicorn itself waits for them until `graceful_timeout`: with a keep-alive as long as ours every restart took 20 s.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: set[_NextRequest] = set()
        self._connections = 0

    def init_process(self) -> None:
        wsgi.Response = _Response  # type: ignore[misc]
        _Response.full = self._full
        super().init_process()

    def handle(self, listener: object, client: object, addr: object) -> None:
        """Serve a connection to its end."""
        self._connections += 1
        try:
            super().handle(listener, client, addr)
        finally:
            self._connections -= 1

    def _full(self) -> bool:
        """Whether so few connections are left that those are not kept which ask for nothing more at the moment."""
        return bool(self._connections > self.worker_connections * 15 // 16)

    def timeout_ctx(self) -> "_NextRequest":
        return _NextRequest(self._waiting, self.cfg.keepalive)

    def let_go(self) -> None:
        """Close the connections that wait for their next request; the client's next one finds a new process."""
        for waiting in list(self._waiting):
            waiting.end()

    def handle_request(self, listener_name: object, req: Any, sock: object, addr: object) -> None:
        """Serve it; a connection whose body goes on and on is closed, where gunicorn would read it to its end."""
        super().handle_request(listener_name, req, sock, addr)
        if not _drained(req):
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no HTTP with a problem that repeats nothing of it; gunicorn's page tells what it saw."""
        known = next((refusal for refusal in REFUSALS if isinstance(exc, refusal[0])), None)
        _, status, title, detail = known or (None, 500, "Internal Server Error", "The bridge failed to handle this.")
        self.log.log(logging.INFO if known else logging.ERROR, "a connection ends: %s", type(exc).__name__)
        code = "malformed" if known else "internal"
        body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code})
        head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        head += f"X-Request-ID: {uuid.uuid4().hex}\r\nX-Content-Type-Options: nosniff\r\n"
        head += f"Cache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            write_nonblock(client, head.encode() + body)
        except OSError:
            self.log.debug("the client of a refused request has gone")


def _drained(req: Any) -> bool:
    """Whether the rest of the body came within bounds."""
    drained = 0
    with gevent.Timeout(DRAIN_SECONDS, False), suppress(ParseException, OSError):
        while drained < DRAIN_BYTES:
            read = len(req.body.read(65536))
            if not read:
                return True
            drained += read
    return False


class _Response(wsgi.Response):
    """Does not tell what serves it, and ends the connection after it where connections are few."""

    full: Callable[[], bool]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if type(self).full():
            self.force_close()

    def default_headers(self) -> list[str]:
        return [header for header in super().default_headers() if not header.startswith("Server:")]


class _NextRequest:
    """The wait for a connection's next request: `gevent.Timeout(seconds, False)`, which can be ended early."""

    def __init__(self, waiting: set["_NextRequest"], seconds: float) -> None:
        self._all = waiting
        self._timeout = gevent.Timeout(seconds, False)
        self._greenlet = gevent.getcurrent()

    def __enter__(self) -> None:
        self._all.add(self)
        self._timeout.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._all.discard(self)
        self._timeout.close()
        return problem is self._timeout

    def end(self) -> None:
        self._all.discard(self)
        gevent.kill(self._greenlet, self._timeout)
