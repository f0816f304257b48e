"""Fetches a source file from an address that the job's producer named.

Only a GET is sent there, over TLS: no key, no cookie, no proxy in between, and no redirect is followed. The name is
resolved once, all its IP addresses are checked, and the connection is made to one of these: a job must not lead this
worker into networks that only it can reach, or to a cloud's metadata.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from urllib.parse import urlsplit

import certifi
import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPSConnection

from bridge_worker.answers import CallFailed, encoded
from bridge_worker.public_addresses import Network, is_allowed
from bridge_worker.reasons import why_no_answer
from jobbridge_client.address import is_address

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # without a byte
HEAD_SECONDS = 60.0  # until the answer's head is complete
MOST_ADDRESSES = 8  # of a name, tried in turn
_PASSES = (408, 425, 429)  # refusals that may pass soon
_FAILURES = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError)


class SourceRefused(Exception):
    """A refusal that a retry will not change; of the address, the text contains only the host."""


def open_source(address: str, headers: Mapping[str, str], networks: Sequence[Network] = ()) -> requests.Response:
    """Open the file at an address for reading (200 or 206); the caller closes it.

    `networks`: private ones that may be reached. Raises SourceRefused; CallFailed, with status 416 where the requested
    range lies outside the file.
    """
    if not (is_address(address) and address.startswith("https:")):
        raise SourceRefused(
            "the source's address is none that can be fetched from (https, a host, a port of 1 to 65535)"
        )
    parts = urlsplit(address)
    host, target = parts.hostname or "", parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    target = target if target.startswith("/") else f"/{target}"
    port = parts.port or 443
    connection, failed = None, CallFailed(f"the source's server {host} cannot be reached: it has no address")
    for ip in _judged(host, port, networks):
        connection = HTTPSConnection(
            ip, port, timeout=CONNECT_SECONDS, server_hostname=host, ssl_context=_tls(), blocksize=65536
        )
        with _ended(connection):
            try:
                connection.connect()
                break
            except _FAILURES as error:
                connection.close()
                failed = CallFailed(f"the source's server {host} cannot be reached: {_why(error)}")
                connection = None
    if connection is None:
        raise failed
    netloc = f"[{host}]" if ":" in host else host
    sent = {**headers, "Host": netloc if port == 443 else f"{netloc}:{port}", "Accept-Encoding": "identity"}
    sent["Connection"] = "close"
    with _ended(connection):
        try:
            assert connection.sock is not None
            connection.sock.settimeout(SILENCE_SECONDS)
            connection.request("GET", target, headers=sent, preload_content=False, decode_content=False)
            response = _response(connection)
        except _FAILURES as error:
            connection.close()
            raise CallFailed(f"no answer from the source's server {host}: {_why(error)}") from None
    try:
        _check(response, host)
    except BaseException:
        response.close()
        raise
    return response


def _judged(host: str, port: int, networks: Sequence[Network]) -> Sequence[str]:
    """Return the IP addresses of a host, all of which may be reached. Raises SourceRefused, CallFailed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise CallFailed(f"the name of the source's server {host} is not known (DNS)") from None
    ips = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not all(is_allowed(ip, networks) for ip in ips):
        raise SourceRefused(f"the source's server {host} has an address that this worker may not reach: it is not"
                            " public (--source-networks)")  # fmt: skip
    return ips[:MOST_ADDRESSES]


class _Response(requests.Response):
    """An answer that closes its connection too."""

    def __init__(self, connection: HTTPSConnection) -> None:
        super().__init__()
        self._its_connection = connection

    def close(self) -> None:
        super().close()
        self._its_connection.close()


def _response(connection: HTTPSConnection) -> requests.Response:
    raw = connection.getresponse()
    response = _Response(connection)
    response.raw, response.status_code, response.reason = raw, raw.status, raw.reason or ""
    response.headers = CaseInsensitiveDict(raw.headers)
    return response


def _check(response: requests.Response, host: str) -> None:
    """Raise SourceRefused, CallFailed for an answer that is not the file or the part of it that was asked for."""
    status = response.status_code
    if status == 416:
        raise CallFailed("the source's server has no such part of the file", status=416)
    if status >= 500 or status in _PASSES:
        raise CallFailed(f"the source's server {host} answers {status}")
    if 300 <= status < 400:
        raise SourceRefused(f"the source's server {host} answers {status}: redirects are not followed")
    if status not in (200, 206):
        raise SourceRefused(f"the source's server {host} answers {status}")
    if encoded(response):
        raise SourceRefused(f"the source's server {host} sends the file encoded, which was not asked for")
    if "Transfer-Encoding" in response.headers or not response.headers.get("Content-Length", "").isdecimal():
        raise SourceRefused(f"the source's server {host} does not tell the file's size (Content-Length)")


def _why(error: BaseException) -> str:
    """Return why there is no answer, without any part of the address."""
    words = why_no_answer(error)
    return "the connection failed" if "/" in words or "?" in words else words


@contextlib.contextmanager
def _ended(connection: HTTPSConnection) -> Iterator[None]:
    """End the connection if the block takes longer than HEAD_SECONDS, however a server trickles."""

    def cut() -> None:
        if (sock := connection.sock) is not None:
            with contextlib.suppress(OSError, TypeError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # beneath TLS, whose state the reader uses

    timer = threading.Timer(HEAD_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _tls() -> ssl.SSLContext:
    """Return a TLS context with the certificate authorities that requests uses."""
    at = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    is_directory = os.path.isdir(at)
    return ssl.create_default_context(cafile=None if is_directory else at, capath=at if is_directory else None)
