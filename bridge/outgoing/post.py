"""One POST to an address that a stranger has named.

No redirect is followed. Everything about the answer is bounded: its bytes, and the time until it has come.
"""

from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import NamedTuple

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from bridge.outgoing.connect import Resolve, connected, ended_at, failing, headers_to, resolve
from bridge.outgoing.destination import Allowed, Destination

SECONDS = 15.0  # from the look-up's end to the answer's
MOST_BYTES = 2048  # of an answer that are read
LONGEST_EXCERPT = 300


class Answer(NamedTuple):
    """An answer: the beginning of its text, printable, and how long to wait if it asked for that."""

    status: int
    excerpt: str
    retry_after: float | None  # seconds


def post(
    allowed: Allowed,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    ask: Resolve = resolve,
) -> Answer:
    """Send the body and read the answer, of whatever status. Raises BadAddress, NotSent."""
    to, connection, end = connected(allowed, url, seconds, ask)
    try:
        with ended_at(connection.sock, end) as over, failing(over, f"No whole answer within {seconds:.0f} s."):
            return _exchange(connection, to, body, headers)
    finally:
        connection.close()


def _exchange(connection: HTTPConnection, to: Destination, body: bytes, headers: Mapping[str, str]) -> Answer:
    given = headers_to(to, headers)
    connection.request("POST", to.target, body, given, preload_content=False, decode_content=False)
    response = connection.getresponse()
    text = b""
    with suppress(OSError, HTTPException, HTTPError):  # the status is there, and counts whatever becomes of the text
        text = response.read(MOST_BYTES, decode_content=False)
    printable = "".join(one if one.isprintable() else " " for one in text.decode(errors="replace"))
    excerpt = printable.strip()[:LONGEST_EXCERPT]
    wait = response.headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 7 else None
    return Answer(response.status, excerpt, retry_after)
