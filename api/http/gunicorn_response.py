"""gunicorn's response with less work, and a time limit on sending to a client that does not read.

The head and the first bytes of the body are sent together; gunicorn sends them separately, in two system calls and two
packets that wake the client. Header lines that every answer has are checked and formatted once, the date once a second.
gunicorn's master imports this: keep it small.
"""

import errno
import socket
import struct
import time
from functools import lru_cache

from gunicorn import util
from gunicorn.http import wsgi

from api.http.connections import stalled
from api.http.fixed_headers import FIXED

PIECE = 64 * 1024
_LINES = {header: f"{header[0]}: {header[1]}\r\n" for header in FIXED}


@lru_cache(1)
def _date(second: int) -> str:
    """Return the line of the Date header."""
    return f"Date: {util.http_date(second)}\r\n"


def given_up(sock: socket.socket) -> BrokenPipeError:
    """Have the kernel drop unsent bytes with the connection; return the error that ends the answer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return BrokenPipeError(errno.EPIPE, "the client does not read its answer")


class TimedResponse(wsgi.Response):
    """gunicorn's response, aborted when its client takes less than a piece in `seconds`.

    It has no Server header.
    """

    seconds = 30.0
    _head = b""  # built, not sent yet
    _lines = ""  # those in FIXED

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Take the answer's headers. Raises what gunicorn raises for an invalid one."""
        lines = [_LINES.get(header) for header in headers]
        self._lines = "".join(filter(None, lines))
        super().process_headers([header for header, line in zip(headers, lines, strict=True) if line is None])

    def send_headers(self) -> None:
        """Build the head. It is sent with the first bytes of the body, or at its end."""
        if not self.headers_sent:
            own = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
            self._head = f"{''.join(self.default_headers())}{own}{self._lines}\r\n".encode("latin-1")
            self.headers_sent = True

    def default_headers(self) -> list[str]:
        """Return the lines that the server adds."""
        (major, minor), end = self.req.version, "close" if self.should_close() else "keep-alive"
        lines = [f"HTTP/{major}.{minor} {self.status}\r\n", _date(int(time.time())), f"Connection: {end}\r\n"]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        return lines

    def write(self, arg: bytes) -> None:
        """Send some of the body. Raises BrokenPipeError where the client does not read."""
        super().write(arg)
        self._send(b"")  # the head, where the answer has no body or this piece was empty

    def close(self) -> None:
        """End the body. Raises BrokenPipeError as `write` does."""
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head or data:
            self._send_piece(head + data[:PIECE])
        for start in range(PIECE, len(data), PIECE):
            self._send_piece(data[start : start + PIECE])

    def _send_piece(self, data: bytes) -> None:
        """Send a piece, and wait only for the rest that the kernel does not take at once."""
        try:
            sent = self.sock.send(data, 0, 0.0)  # gevent's: seconds to wait
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        self.sock.settimeout(self.seconds)
        try:
            with stalled():
                self.sock.sendall(data[sent:])
        except TimeoutError:
            raise given_up(self.sock) from None
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(None)
