"""Sends a file's bytes by the kernel (sendfile), without copying them through the memory of this process.

The call is made in a thread of the file pool, since it reads the file. It waits there only for a client that reads as
fast as it is sent to, milliseconds in all: each trip to a thread and back costs more. For others the greenlet waits.
"""

import errno
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from gevent.monkey import get_original
from gevent.socket import wait_write  # type: ignore[attr-defined]

from api.http.connections import stalled
from api.http.gunicorn_response import TimedResponse
from bridge.errors import Unavailable
from bridge.runtime import OnFiles

FIRST = 64 * 1024  # bytes of the first call; each later one has twice as many
MOST = 8 * 1024 * 1024
SOON_MILLISECONDS = 1  # within which a client that keeps up has read some
MOST_SECONDS = 0.02  # in a thread, for the sake of the other files
# What a file system without sendfile answers.
UNABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class _Ends:
    """Duplicated descriptors of a connection and a file, which nobody else closes.

    A thread may start or finish its work when the request is long over: it must not find another file or connection
    under these numbers.
    """

    def __init__(self, sock: Any, file: BinaryIO) -> None:
        self.file = os.dup(file.fileno())
        self.sock = os.dup(sock.fileno())

    def __del__(self) -> None:
        for one in ("file", "sock"):
            with suppress(AttributeError, OSError):
                os.close(getattr(self, one))


def connection(environ: dict[str, Any]) -> Any:
    """Return the request's connection if the kernel can send into it (gunicorn's, without TLS), else None."""
    sock = environ.get("gunicorn.socket")
    return sock if isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket) else None


def file_pieces(sock: Any, file: BinaryIO, served: range, files: OnFiles) -> Iterator[tuple[int, bytes]]:
    """Yield a file's bytes as an answer's body: how many, and the bytes themselves where this process has to send them.

    Where `sock` is a connection, the kernel has sent them, after what was written before (the answer's head). Ends
    early where the file does. Raises Unavailable where the file does not answer, BrokenPipeError where the client
    takes nothing for a while.
    """
    at = served.start
    if sock is not None and served:
        yield 0, b""  # makes the head be sent
        try:
            for sent in _sent(sock, file, served, files):
                at += sent
                yield sent, b""
            return
        except Unavailable:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # its thread may keep the connection for as long as it hangs
            raise
        except OSError as error:
            if error.errno not in UNABLE or at > served.start:
                raise
    file.seek(at)
    while at < served.stop and (piece := files(file.read, min(FIRST, served.stop - at))):
        at += len(piece)
        yield len(piece), piece


def _sent(sock: Any, file: BinaryIO, served: range, files: OnFiles) -> Iterator[int]:
    ends, at, count = _Ends(sock, file), served.start, FIRST
    while at < served.stop:
        sent = files(_send, ends, at, min(count, served.stop - at))
        if sent == 0:
            return
        if sent is None:
            _wait(sock, TimedResponse.seconds)
            continue
        at, count = at + sent, min(count * 2, MOST)
        yield sent


def _send(ends: _Ends, at: int, count: int) -> int | None:
    """Return how many bytes the connection took of the file, 0 at the file's end; None if it takes none now."""
    done, end = 0, time.monotonic() + MOST_SECONDS
    ready = get_original("select", "poll")()
    ready.register(ends.sock, select.POLLOUT)
    while done < count:
        try:
            sent = os.sendfile(ends.sock, ends.file, at + done, count - done)
        except BlockingIOError:
            if not done:
                return None
            if time.monotonic() > end or not ready.poll(SOON_MILLISECONDS):
                break
            continue
        if sent == 0:
            break
        done += sent
    return done


def _wait(sock: Any, seconds: float) -> None:
    try:
        with stalled():
            wait_write(sock.fileno(), timeout=seconds, timeout_exc=TimeoutError())
    except TimeoutError:
        # Unsent bytes in the kernel are dropped with the connection.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise BrokenPipeError(errno.EPIPE, "the client does not read its answer") from None
