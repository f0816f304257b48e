"""A connection to an address that a stranger has named.

Its name is looked up once, every address is checked, and one of those is connected to, with TLS for the name: whatever
DNS says a moment later changes nothing. No proxy, cookie, credential or cache is used.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPException
from threading import Event, Timer
from typing import Any

import structlog
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from bridge.outgoing.addresses import Network, refusal
from bridge.outgoing.destination import Allowed, BadAddress, Destination

log = structlog.get_logger("outgoing")

CONNECT_SECONDS = 5.0
MOST_ADDRESSES = 8  # of a name

FAILURES = (OSError, HTTPException, HTTPError, ValueError)  # of a connection, and of what answers on it

# The IP addresses of a name at a port, as strings. Raises OSError.
Resolve = Callable[[str, int], Sequence[str]]


class NotSent(Exception):
    """There is no answer; the text says why, without what the receiver sent."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver. Raises OSError."""
    return addresses_in(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def addresses_in(found: Sequence[Any]) -> Sequence[str]:
    """Return the IP addresses in what `getaddrinfo` returned, each once."""
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def connected(allowed: Allowed, url: str, seconds: float, ask: Resolve) -> tuple[Destination, HTTPConnection, float]:
    """Connect to an address; return its parts, the connection, and the time.monotonic() `seconds` after the look-up.

    Raises BadAddress, NotSent.
    """
    to, also = allowed.destination(url)
    ips = _judged(to, also, ask)
    end = time.monotonic() + seconds
    return to, _connected(to, ips, end), end


def _judged(to: Destination, also: Sequence[Network], ask: Resolve) -> Sequence[str]:
    """Return the IP addresses of a destination, each of which may be reached. Raises BadAddress, NotSent."""
    if to.is_ip:
        return [to.host]  # checked with the address
    try:
        ips = ask(to.host, to.port)
    except (OSError, UnicodeError):
        raise NotSent("The host's name cannot be looked up.") from None
    if not ips:
        raise NotSent("The host's name has no address.")
    for ip in ips:
        if (why := refusal(ip, also)) is not None:
            log.warning("inner_address_refused", host=to.host, why=why)  # whoever named it learns nothing of our DNS
            raise BadAddress("The address may not be reached: its name leads to an IP address that is not allowed.")
    return ips[:MOST_ADDRESSES]


def _connected(to: Destination, ips: Sequence[str], end: float) -> HTTPConnection:
    """Connect to the first of these that accepts a connection. Raises NotSent."""
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
        except BaseException:  # the time of the whole is over
            connection.close()
            raise
    if isinstance(failed, ssl.SSLError) or isinstance(getattr(failed, "__cause__", None), ssl.SSLError):
        raise NotSent("TLS failed: the receiver's certificate or protocol is not accepted.") from failed
    raise NotSent("The receiver takes no connection.") from failed


def _to(to: Destination, ip: str, seconds: float) -> HTTPConnection:
    if to.scheme == "http":
        return HTTPConnection(ip, to.port, timeout=seconds)
    return HTTPSConnection(ip, to.port, timeout=seconds, server_hostname=to.host, ssl_context=tls())


@cache
def tls() -> ssl.SSLContext:
    """Return the TLS context of the system's authorities, or of those that SSL_CERT_FILE and SSL_CERT_DIR name."""
    return ssl.create_default_context()


def headers_to(to: Destination, headers: Mapping[str, str]) -> dict[str, str]:
    """Return these headers with those that every request of the bridge has."""
    return {**headers, "Host": to.authority, "Connection": "close", "Accept-Encoding": "identity"}


@contextmanager
def failing(over: Callable[[], bool] = lambda: False, late: str = "") -> Iterator[None]:
    """Raise NotSent for what fails in the block: `late` if the time was `over`."""
    try:
        yield
    except FAILURES as error:
        raise NotSent(late if over() else f"The connection failed: {type(error).__name__}.") from error


@contextmanager
def ended_at(sock: Any, end: float, silence: float | None = None) -> Iterator[Callable[[], bool]]:
    """End a connection at the moment `end`, however slowly a receiver sends; yield what tells whether the time was up.

    `silence`: seconds without a byte after which a read fails earlier.
    """
    over = Event()

    def cut() -> None:
        over.set()
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # beneath TLS, whose own state another thread uses

    timer = Timer(max(0.0, end - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    left = max(0.1, end - time.monotonic()) + 1
    sock.settimeout(left if silence is None else min(left, silence))
    try:
        yield lambda: over.is_set() or time.monotonic() >= end  # a late timer leaves it to the socket's own limit
    finally:
        timer.cancel()
