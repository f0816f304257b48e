"""One POST to an address that a stranger has named.

Its name is looked up once, every address is judged, and one of those is connected to, with TLS for the name: whatever
DNS says a moment later changes nothing. No redirect is followed, no proxy is asked, no cookie, credential or cache is
there. Everything about the answer is bounded: its bytes, and the time until it is there.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPException
from threading import Event, Timer
from typing import Any, NamedTuple

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from bridge.outgoing.addresses import Network, refusal
from bridge.outgoing.destination import Allowed, BadAddress, Destination

SECONDS = 15.0  # from the look-up's end to the answer's
CONNECT_SECONDS = 5.0
MOST_BYTES = 2048  # of an answer that are read
MOST_ADDRESSES = 8  # of a name
LONGEST_EXCERPT = 300

# The IP addresses of a name at a port, as strings. Raises OSError.
Resolve = Callable[[str, int], Sequence[str]]


class NotSent(Exception):
    """There is no answer; the text says why, without what the receiver sent."""


class Answer(NamedTuple):
    """What was answered: the beginning of its text, printable, and how long to wait where it asked for that."""

    status: int
    excerpt: str
    retry_after: float | None  # seconds


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


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
    to, also = allowed.destination(url)
    ips = _judged(to, also, ask)
    end = time.monotonic() + seconds
    connection = _connected(to, ips, end)
    try:
        with _ended_at(connection, end) as over:
            try:
                return _exchange(connection, to, body, headers)
            except (OSError, HTTPException, HTTPError, ValueError) as error:
                if over.is_set():
                    raise NotSent(f"No whole answer within {seconds:.0f} s.") from error
                raise NotSent(f"The connection failed: {type(error).__name__}.") from error
    finally:
        connection.close()


def _judged(to: Destination, also: Sequence[Network], ask: Resolve) -> Sequence[str]:
    """The IP addresses of a destination, each of which may be reached. Raises BadAddress, NotSent."""
    if to.is_ip:
        return [to.host]  # judged with the address
    try:
        ips = ask(to.host, to.port)
    except (OSError, UnicodeError):
        raise NotSent("The host's name cannot be looked up.") from None
    if not ips:
        raise NotSent("The host's name has no address.")
    for ip in ips:
        if (why := refusal(ip, also)) is not None:
            raise BadAddress(f"The address may not be reached: {why}.")
    return ips[:MOST_ADDRESSES]


def _connected(to: Destination, ips: Sequence[str], end: float) -> HTTPConnection:
    """A connection to the first of these that takes one. Raises NotSent."""
    failed: Exception | None = None
    for ip in ips:
        left = end - time.monotonic()
        if left <= 0:
            break
        connection = _to(to, ip, min(left, CONNECT_SECONDS))
        try:
            connection.connect()
            return connection
        except (OSError, HTTPError, ValueError) as error:
            connection.close()
            failed = error
    if isinstance(failed, ssl.SSLError) or isinstance(getattr(failed, "__cause__", None), ssl.SSLError):
        raise NotSent("TLS failed: the receiver's certificate or protocol is not accepted.") from failed
    raise NotSent("The receiver takes no connection.") from failed


def _to(to: Destination, ip: str, seconds: float) -> HTTPConnection:
    if to.scheme == "http":
        return HTTPConnection(ip, to.port, timeout=seconds)
    return HTTPSConnection(ip, to.port, timeout=seconds, server_hostname=to.host, ssl_context=_tls())


@cache
def _tls() -> ssl.SSLContext:
    """The system's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name."""
    return ssl.create_default_context()


@contextmanager
def _ended_at(connection: HTTPConnection, end: float) -> Iterator[Event]:
    """End the connection at that moment, however a receiver trickles; the event tells that this was done."""
    over = Event()
    sock: Any = connection.sock

    def cut() -> None:
        over.set()
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # beneath TLS, whose own state another thread uses

    timer = Timer(max(0.0, end - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    sock.settimeout(max(0.1, end - time.monotonic()) + 1)
    try:
        yield over
    finally:
        timer.cancel()


def _exchange(connection: HTTPConnection, to: Destination, body: bytes, headers: Mapping[str, str]) -> Answer:
    given = {**headers, "Host": to.authority, "Connection": "close", "Accept-Encoding": "identity"}
    connection.request("POST", to.target, body, given, preload_content=False, decode_content=False)
    response = connection.getresponse()
    text = b""
    with suppress(OSError, HTTPException, HTTPError):  # the status is there, and counts whatever becomes of the text
        text = response.read(MOST_BYTES, decode_content=False)
    printable = "".join(one if one.isprintable() else " " for one in text.decode(errors="replace"))
    excerpt = printable.strip()[:LONGEST_EXCERPT]
    wait = response.headers.get("Retry-After", "")
    return Answer(
        response.status, excerpt, float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 7 else None
    )
