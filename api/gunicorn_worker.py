"""gunicorn's gevent worker, which stops without waiting for idle clients, and logs little."""

import errno
import gc
import logging
import mmap
import signal
import sys
import time
import uuid
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, ClassVar

import gevent
import orjson
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.glogging import Logger
from gunicorn.http import get_parser, message, wsgi
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import close, close_graceful, write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from api.gunicorn_master import STOPS
from api.http.connections import CURRENT, TICK_SECONDS, Connections, HungUp
from api.http.gunicorn_response import TimedResponse
from api.http.poll_pacing import PollPacing, polls

# How much of an unwanted body is read, so that a client that sends everything before it reads gets the answer.
DRAIN_BYTES = 32 * 1024 * 1024
DRAIN_SECONDS = 10.0
SHARE_OF_GRACE = 0.8  # of graceful_timeout, after which the master kills: the time that a process has to end by itself
ACCEPT_AT_ONCE = 100  # connections, without letting others run: about ten milliseconds
LINGER_BYTES = 1024 * 1024  # the same for input that was not a request
LINGER_SECONDS = 1.0
AGAIN_SECONDS = 1.0
FULL_SECONDS = 10.0  # between two log lines that no descriptor is left
MOST_ADDRESSES = 4096  # of clients, remembered as trusted proxies or not
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT)
REFUSALS: list[tuple[type[Exception], int, str, str]] = [
    (LimitRequestLine, 414, "URI Too Long", "The request line is too long."),
    (LimitRequestHeaders, 431, "Request Header Fields Too Large", "The header fields are too large or too many."),
    # RFC 9112 suggests 501; a 5xx would blame the server and invite a retry.
    (UnsupportedTransferCoding, 400, "Bad Request", "This Transfer-Encoding is not supported; send chunked."),
    (ExpectationFailed, 417, "Expectation Failed", "The only supported expectation is 100-continue."),
    (ParseException, 400, "Bad Request", "This is not a valid HTTP request."),
]


class ErrorLogger(Logger):
    """Keeps no access log: the application logs what happened, and a line per request costs a twentieth of its time."""

    access_log_enabled = False


class Worker(GeventWorker):
    """Stops without waiting for idle clients, and without leaving a request unanswered.

    gunicorn itself waits for every open connection until `graceful_timeout`: with a keep-alive as long as ours, every
    restart took 20 s. Here connections wait in `api.http.connections`, which can end the wait.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keep, trusted = self.cfg.keepalive, self.cfg.forwarded_allow_ips
        self.connections = Connections(int(0.9 * self.worker_connections), keep, trusted)
        self.pacing = PollPacing()
        self.told = False  # by the master, to stop; only the master knows
        self._said_full = -FULL_SECONDS
        self._serving = mmap.mmap(-1, 1)  # shared with the master, which forks after this

    @property
    def serves(self) -> bool:
        """Whether this process accepts connections, or did."""
        return self._serving[0] == 1

    def init_process(self) -> None:
        wsgi.Response = _Response  # type: ignore[misc]
        _Response.worker = self
        errors = wsgi.WSGIErrorsWrapper(self.cfg)
        wsgi.WSGIErrorsWrapper = lambda _: errors  # type: ignore[assignment, misc]  # one for all requests
        # Each access to a setting is a search and two calls; a request makes about thirty.
        vars(self.cfg).update({name: setting.get() for name, setting in self.cfg.settings.items()})
        # Clients come again from the same address, and parsing an address takes longer than parsing a request line.
        cfg = self.cfg
        allowed = {"allow_list": cfg.forwarded_allow_ips, "networks": cfg.forwarded_allow_networks()}
        trusted = lru_cache(MOST_ADDRESSES)(partial(message._ip_in_allow_list, **allowed))  # noqa: SLF001
        message.HeaderPolicy._peer_is_trusted_proxy = (  # type: ignore[method-assign]  # noqa: SLF001
            lambda request: not isinstance(peer := request.peer_addr, tuple) or trusted(peer[0])  # type: ignore[attr-defined]
        )
        super().init_process()

    def init_signals(self) -> None:
        """Install the handlers and unblock the signals that the master blocked (api/gunicorn_master.py)."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop; while the application loads, at once: that may take longer than the grace period."""
        self._leave_unless_booted()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop without grace; while the application loads, here and not in a greenlet, which would not get its turn."""
        self._leave_unless_booted()
        super().handle_quit(sig, frame)

    def _leave_unless_booted(self) -> None:
        if not self.booted:
            sys.exit(0)

    def load_wsgi(self) -> None:
        """Load the application. A failure ends the master at its start; later, only this process.

        Garbage collection is off meanwhile: it finds nothing, and takes a quarter of a second of the start.
        """
        gc.disable()
        try:
            super().load_wsgi()
        except Exception:
            if self.age <= self.cfg.workers:
                raise
            self.log.exception("process_start_failed")
            time.sleep(AGAIN_SECONDS)
            sys.exit(1)
        finally:
            gc.enable()

    def run(self) -> None:
        """Accept connections until told to stop, then end those without a request."""
        gevent.get_hub().print_exception = self._failed
        pool = Pool(self.worker_connections)
        # Its name is read now: the socket may be closed when a connection from it begins.
        servers = [StreamServer(one, partial(self.handle, one.getsockname()), spawn=pool) for one in self.sockets]
        for server in servers:
            server.start()
        self._serving[0] = 1
        while self.alive:
            for server in servers:
                # One at a time where other processes listen too, so that each gets its share; not while polls wait for
                # their turn, since a create would wait behind polls in the kernel's queue.
                server.max_accept = 1 if self.cfg.workers > 1 and not self.pacing.long else ACCEPT_AT_ONCE
            self.notify()
            gevent.sleep(TICK_SECONDS)
            self.connections.tick()
        for server in servers:
            server.close()
        grace = SHARE_OF_GRACE * self.cfg.graceful_timeout
        end = time.monotonic() + grace
        while len(pool) and time.monotonic() < end:  # includes connections that were accepted and have not begun
            self.notify()
            self.connections.let_go()
            if time.monotonic() > end - grace / 2:
                self.connections.end_uploads()
            gevent.sleep(TICK_SECONDS)
            self.connections.tick()
        if len(pool):
            self.log.warning("this process ends with %d connections under way", len(pool))
            for server in servers:
                server.stop(timeout=1)

    def _failed(self, context: object, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """Log an exception that no greenlet caught."""
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            if time.monotonic() - self._said_full > FULL_SECONDS:
                self._said_full = time.monotonic()
                self.log.error("file_descriptors_exhausted")
            return
        self.log.error("greenlet_failed", exc_info=(kind, error, trace))

    def handle(self, name: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends; `name`: the local address that it came to."""
        client.setblocking(1)
        self.pacing.came()
        connection = self.connections.open(client, addr)
        CURRENT.set(connection)
        request, refused = None, False
        try:
            parser = get_parser(self.cfg, connection, addr)
            while True:
                request = None
                self.connections.wait(connection)
                request = next(parser)
                self.connections.serve(connection)
                if polls(request.path or "", request.query or ""):
                    self.pacing.wait()
                self.handle_request(name, request, client, addr)
        except (NoMoreData, StopIteration, HungUp):
            pass  # the client has gone, or the answer said that it was the last one
        except OSError as error:
            if error.errno not in GONE:
                self.log.exception("connection_failed")
        except Exception as error:
            self.handle_error(request, client, addr, error)
            refused = True
        finally:
            self.connections.close(connection)
            if refused:  # unread input would reset the connection, and the answer would be lost
                close_graceful(client, LINGER_SECONDS, LINGER_BYTES)
            else:
                close(client)

    def handle_request(self, listener_name: object, req: Any, sock: object, addr: object) -> None:
        """Serve a request, then read the rest of its body within bounds; gunicorn would read an endless one forever.

        This is also done where the connection ends with this answer: closed with a part of the body unread, it would
        be reset, and the client might not see the answer.
        """
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            _drained(req)
            raise
        if not _drained(req):
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer invalid HTTP with a problem that repeats nothing of it; gunicorn's own page would."""
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
    """Read the rest of the body; return whether it ended within bounds."""
    if getattr(req.body.reader, "length", None) == 0:  # most have been read, and a timeout costs more than this check
        return True
    drained = 0
    with gevent.Timeout(DRAIN_SECONDS, False), suppress(ParseException, OSError):
        while drained < DRAIN_BYTES:
            read = len(req.body.read(65536))
            if not read:
                return True
            drained += read
    return False


class _Response(TimedResponse):
    """Ends the connection where connections are few, or the process is to stop."""

    worker: ClassVar[Worker]

    def default_headers(self) -> list[str]:
        if not self.worker.alive or self.worker.connections.scarce:
            self.force_close()
        return super().default_headers()
