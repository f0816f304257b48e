"""gunicorn's gevent worker, which stops without waiting for clients that ask for nothing, and refuses as we do."""

import socket
import uuid
from types import TracebackType
from typing import Any

import gevent
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from api.problems import problem


class Worker(GeventWorker):
    """When told to stop, it lets go of the connections on which no request is under way.

    gunicorn itself waits for them until `graceful_timeout`: with a keep-alive as long as ours every restart took 20 s.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: set[_NextRequest] = set()

    def timeout_ctx(self) -> "_NextRequest":
        return _NextRequest(self._waiting, self.cfg.keepalive)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """What is no HTTP never reaches the application: its problem is written here instead of gunicorn's HTML."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status = 414 if isinstance(exc, LimitRequestLine) else 431 if isinstance(exc, LimitRequestHeaders) else 400
        self.log.warning("refused what is no HTTP: %s", type(exc).__name__)
        response = problem(status, "This is no HTTP request that the bridge reads.", "malformed")
        response.headers.update({"Connection": "close", "X-Request-ID": uuid.uuid4().hex})
        head = f"HTTP/1.1 {response.status}\r\n{response.headers}"
        try:
            client.sendall(head.encode() + response.get_data())
        except OSError:
            self.log.debug("the client has gone before its refusal")

    def let_go(self) -> None:
        """Close the connections that wait for their next request; the client's next one finds a new process."""
        for waiting in list(self._waiting):
            waiting.end()


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
