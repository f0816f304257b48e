"""A receiver of webhooks on loopback: keeps what came, and answers as a test says."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple


class Received(NamedTuple):
    """A request as it came; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


Answers = Callable[["BaseHTTPRequestHandler", Received], object]


def answer(status: int, text: str = "", **headers: str) -> Answers:
    """Return a handler that always gives the same answer; `Retry_After="5"` is a header."""

    def answers(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answers


def hang(handler: BaseHTTPRequestHandler, _: Received) -> None:
    """Say nothing."""
    Event().wait(20)


def trickle_head(handler: BaseHTTPRequestHandler, _: Received) -> None:
    for one in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1000:
        handler.wfile.write(bytes([one]))
        Event().wait(0.1)


def trickle_body(handler: BaseHTTPRequestHandler, _: Received) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        handler.wfile.write(b"x")
        Event().wait(0.1)


class Receiver:
    """Its address, what came, and what it answers from now on."""

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}/hook"
        self.got: list[Received] = []
        self.answers: Answers = answer(204)


@contextmanager
def receiver(certificate: Path | None = None, address: str = "127.0.0.1") -> Iterator[Receiver]:
    """Listen until the end of the block; with a certificate (and its key in one file) over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            came = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            it.got.append(came)
            with suppress(OSError):
                it.answers(self, came)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass

    server = Server((address, 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    it = Receiver(server.server_address[1], "http" if certificate is None else "https")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
