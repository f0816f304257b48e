"""Sends files' bytes by the kernel (sendfile), without copying them through the memory of this process.

The call is made in a thread (bridge.runtime.Runtime.sends), since it opens and reads files, one after the other. It
waits there only for a client that reads as fast as it is sent to, milliseconds in all: each trip to a thread and back
costs more. For others the greenlet waits.
"""

import errno
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from gevent.monkey import get_original
from gevent.socket import wait_write  # type: ignore[attr-defined]

from api.http.connections import stalled
from api.http.gunicorn_response import TimedResponse, given_up
from bridge.errors import BridgeError, Unavailable
from bridge.runtime import OnFiles

PIECE = 64 * 1024  # bytes that are read where the kernel does not send
MOST = 8 * 1024 * 1024  # bytes of one call
SOON_MILLISECONDS = 1  # within which a client that keeps up has read some
MOST_SECONDS = 0.02  # in a thread, for the sake of the other files
SENDS_NICE = 10  # by how much less urgent these threads are: a download takes a core, and answers to others are short
AHEAD = 8  # parts that a thread may go on to
# What a file system without sendfile answers.
UNABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class CannotSend(Exception):
    """Raised where the kernel cannot send a file, and has sent nothing: it has to be read."""


class Part(NamedTuple):
    """A range of a file's bytes.

    `open` is called in a thread when it is the file's turn; it returns None for what is no file.
    """

    open: Callable[[], BinaryIO | None]
    served: range


class _Ends:
    """Descriptors of a connection and of the file that is being sent, which nobody else closes.

    A thread may start or finish its work when the request is long over: it must not find another file or connection
    under these numbers.
    """

    def __init__(self, sock: Any) -> None:
        self._file: BinaryIO | None = None
        self._opened: Callable[[], BinaryIO | None] | None = None
        self.sock = os.dup(sock.fileno())

    def file(self, opens: Callable[[], BinaryIO | None]) -> BinaryIO:
        """Return the file that `opens` opens, once for calls in a row. Raises OSError (ENOSYS: no file)."""
        if self._opened is not opens or self._file is None:
            self._close()
            self._file = opens()
            if self._file is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            self._opened = opens
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self._close()
        with suppress(AttributeError, OSError):
            os.close(self.sock)


def connection(environ: dict[str, Any]) -> Any:
    """Return the request's connection if the kernel can send into it (gunicorn's, without TLS), else None."""
    sock = environ.get("gunicorn.socket")
    return sock if isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket) else None


def file_pieces(sock: Any, file: BinaryIO, served: range, files: OnFiles) -> Iterator[tuple[int, bytes]]:
    """Yield a file's bytes as an answer's body: how many, and the bytes themselves where this process has to send them.

    Where `sock` is a connection, the kernel has sent them. Ends early where the file does. Raises as `sent_pieces`,
    except CannotSend.
    """
    if sock is not None and served:
        try:
            own = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
            yield from sent_pieces(sock, [Part(lambda: own, served)], files)
            return
        except CannotSend:
            pass
    file.seek(served.start)
    at = served.start
    while at < served.stop and (piece := files(file.read, min(PIECE, served.stop - at))):
        at += len(piece)
        yield len(piece), piece


def sent_pieces(sock: Any, parts: Iterable[Part], files: OnFiles) -> Iterator[tuple[int, bytes]]:
    """Send parts of files by the kernel, one after the other; yield how many bytes it sent, and b"".

    They go after what was written before (the answer's head). Ends early where a file does. Raises CannotSend;
    Unavailable where a file does not answer; BrokenPipeError where the client takes nothing for a while; and what
    opening a file raises.
    """
    yield 0, b""  # makes the head be sent
    try:
        for sent in _sent(sock, parts, files):
            yield sent, b""
    except Unavailable:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # its thread may keep the connection for as long as it hangs
        raise


def _sent(sock: Any, parts: Iterable[Part], files: OnFiles) -> Iterator[int]:
    ends, coming, ahead, begun = _Ends(sock), iter(parts), deque[Part](), False
    while True:
        ahead.extend(islice(coming, AHEAD - len(ahead)))
        if not ahead:
            return
        try:
            sent = files(_send, ends, list(ahead))
        except OSError as error:
            if begun or error.errno not in UNABLE:
                raise
            raise CannotSend from None
        if sent == 0:
            return
        begun = True
        if sent is None:
            _wait(sock, TimedResponse.seconds)
            continue
        _drop(ahead, sent)
        yield sent


def _drop(parts: deque[Part], sent: int) -> None:
    """Remove the first `sent` bytes of the parts."""
    while sent:
        opens, served = parts.popleft()
        if sent < len(served):
            parts.appendleft(Part(opens, served[sent:]))
        sent -= min(sent, len(served))


def _send(ends: _Ends, parts: Sequence[Part]) -> int | None:
    """Return how many bytes the connection took, 0 where the first file has ended, None where it takes none now."""
    done, end = 0, time.monotonic() + MOST_SECONDS
    ready = get_original("select", "poll")()
    ready.register(ends.sock, select.POLLOUT)
    for part in parts:
        left = part.served
        while left:
            try:
                sent = os.sendfile(ends.sock, ends.file(part.open).fileno(), left.start, min(MOST, len(left)))
            except BlockingIOError:
                if not done:
                    return None
                if not ready.poll(SOON_MILLISECONDS):
                    return done
                sent = -1
            except (OSError, BridgeError):
                if not done:
                    raise
                return done  # it is raised by the next call
            if sent == 0:
                return done
            left = left[max(sent, 0) :]
            done += max(sent, 0)
            if time.monotonic() > end:
                return done
    return done


def _wait(sock: Any, seconds: float) -> None:
    try:
        with stalled():
            wait_write(sock.fileno(), timeout=seconds, timeout_exc=TimeoutError())
    except TimeoutError:
        raise given_up(sock) from None
