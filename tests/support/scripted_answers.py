"""A server that gives the answers that a test wrote, byte for byte, whatever it is asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobbridge_client import Client


def answer(status: str, body: bytes = b"{}", *headers: str, kind: str = "application/json") -> bytes:
    """Return an HTTP answer; `kind` is its media type."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@contextmanager
def asked(*answers: bytes, **options: Any) -> Iterator[tuple[Client, "Scripted"]]:
    """Yield a client of a server that gives these answers, made with these options, and the server."""
    with scripted(*answers) as server, Client(server.url, **options) as client:
        yield client, server


class Scripted:
    """What was asked so far: the heads of the requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heads: list[str] = []


@contextmanager
def scripted(*answers: bytes) -> Iterator[Scripted]:
    """Yield a server on loopback: one connection for each answer; the last answer is repeated."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Scripted(f"http://127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> None:
            for number in range(1000):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(30)
                    head = b""
                    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
                        head += piece
                    server.heads.append(head.decode("latin-1"))
                    try:
                        connection.sendall(answers[min(number, len(answers) - 1)])
                    except OSError:
                        continue  # the client would not hear more

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(30)
