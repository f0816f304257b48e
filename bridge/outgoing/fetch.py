"""One GET from an address that a stranger has named; its body is read piece by piece.

No redirect is followed, no encoding is asked for. The head, each silence and the whole have time limits; whoever reads
bounds the bytes, of which one piece is held at a time.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bridge.outgoing.connect import Resolve, connected, ended_at, failing, headers_to, resolve
from bridge.outgoing.destination import Allowed

HEAD_SECONDS = 30.0  # from the look-up's end until the head of the answer has come
SILENCE_SECONDS = 30.0  # in the body, without a byte
SECONDS = 3600.0  # the whole
PIECE = 64 * 1024  # bytes read at a time


@dataclass(frozen=True)
class Fetched:
    """An answer of whatever status, its body unread; to be closed."""

    status: int
    headers: Mapping[str, str]
    _response: Any
    _open: ExitStack

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as far as it comes within the time limits. Raises NotSent if the connection fails."""
        with failing():
            while piece := self._response.read1(PIECE, decode_content=False):
                yield piece

    def close(self) -> None:
        """End the connection."""
        self._open.close()


def fetch(
    allowed: Allowed,
    url: str,
    headers: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    head_seconds: float = HEAD_SECONDS,
    silence: float = SILENCE_SECONDS,
    ask: Resolve = resolve,
) -> Fetched:
    """Send a GET to an address and return the answer. Raises BadAddress, NotSent."""
    to, connection, head_end = connected(allowed, url, head_seconds, ask)
    sock = connection.sock  # the connection forgets it if the answer ends with it
    with ExitStack() as stack:
        stack.callback(connection.close)
        given = headers_to(to, headers)
        with ended_at(sock, head_end) as over, failing(over, f"No answer within {head_seconds:.0f} s."):
            connection.request("GET", to.target, None, given, preload_content=False, decode_content=False)
            response = connection.getresponse()
        stack.callback(response.close)
        stack.enter_context(ended_at(sock, time.monotonic() + seconds, silence))
        return Fetched(response.status, response.headers, response, stack.pop_all())
