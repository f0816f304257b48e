"""Why there is no answer from the bridge, in words that say where to look."""

from __future__ import annotations

import http.client
import socket
import ssl

import requests
import urllib3.exceptions

from bridge_worker.text import one_line

_CERTIFICATES = (
    ("has expired", "its TLS certificate has expired"),
    ("not yet valid", "its TLS certificate is not yet valid: look at this machine's clock"),
    ("Hostname mismatch", "its TLS certificate is for another name"),
    ("IP address mismatch", "its TLS certificate is for another address"),
    ("self-signed", "its TLS certificate is self-signed, or of an authority that is not known here:"
     " REQUESTS_CA_BUNDLE names a file with it"),
    ("unable to get", "the authority of its TLS certificate is not known here:"
     " REQUESTS_CA_BUNDLE names a file with it"),
)  # fmt: skip


def why_no_answer(error: BaseException) -> str:
    """Return the deepest known cause of an exception of requests as one line; name the proxy if it is at fault."""
    causes = _causes(error)
    proxy = any(isinstance(e, (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError)) for e in causes)
    words = next((found for e in reversed(causes) if (found := _words(e))), "")
    if not words:
        last = causes[-1]
        words = one_line(f"{type(last).__name__}: {last}", 200)
    return f"{words} (by the proxy: HTTPS_PROXY, HTTP_PROXY, NO_PROXY)" if proxy else words


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and those behind it: causes, contexts, and those that urllib3 carries along."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo and len(found) < 30:
        item = todo.pop()
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [*item.args, getattr(item, "reason", None), item.__context__, item.__cause__]
    return found


def _words(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name is not known (DNS)"
    if isinstance(error, ssl.SSLCertVerificationError):
        text = str(error)
        return next((words for part, words in _CERTIFICATES if part in text), f"TLS certificate: {one_line(text, 200)}")
    if isinstance(error, ssl.SSLError):
        return "no TLS there: http:// instead of https://?" if "WRONG_VERSION" in str(error) else (
            f"TLS: {one_line(str(error), 200)}")  # fmt: skip
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed before an answer came"
    if isinstance(error, ConnectionResetError):
        return "the connection was reset"
    if isinstance(error, (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)):
        connecting = isinstance(error, (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError))
        return "no connection within the time" if connecting else "no answer within the time"
    if isinstance(error, http.client.HTTPException):
        return f"no HTTP: {one_line(f'{type(error).__name__} {error}', 200)}"
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException) and error.strerror:
        return one_line(f"{error.strerror}", 200)
    return one_line(str(error), 200) if isinstance(error, OSError) and "Tunnel connection" in str(error) else ""
