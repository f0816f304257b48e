"""A time limit on sending to a client that does not read. gunicorn's master imports this: keep it small."""

import errno
import socket
import struct

from gunicorn.http import wsgi

PIECE = 64 * 1024


class TimedResponse(wsgi.Response):
    """gunicorn's response, which ends when its client takes less than a piece in `seconds`."""

    seconds = 30.0

    def write(self, arg: bytes) -> None:
        """Send some of the body. Raises BrokenPipeError where the client does not read."""
        self.sock.settimeout(self.seconds)
        try:
            for start in range(0, max(1, len(arg)), PIECE):
                super().write(arg[start : start + PIECE])
        except TimeoutError:
            # What the kernel still holds for it is dropped with the connection.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise BrokenPipeError(errno.EPIPE, "the client does not read its answer") from None
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(None)
