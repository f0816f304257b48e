"""The bridge's address and key, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from jobbridge_client.errors import BadSetting


def checked(url: str, key: str | None, *, allow_http: bool) -> str:
    """Return the address without a slash at its end. Raises BadSetting."""
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or bool(parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        bad = True
    if bad or "@" in parts.netloc or not url.isprintable() or " " in url:
        raise BadSetting("url: the bridge's address must look like https://bridge.example.org")
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        raise BadSetting("key: only visible ASCII characters")
    if key and not allow_http and parts.scheme == "http" and not stays_here(url):
        raise BadSetting(f"url: the key would go to {parts.hostname} unencrypted; use https://, or say allow_http=True")
    return parts.geturl().rstrip("/")  # the scheme in lower case


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,254})(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")  # as the last label: the whole is an IPv4 address


def is_address(location: str) -> bool:
    """Return whether a redirect's target may be fetched, without a key.

    An address to which no connection can be made is refused, so that it is not asked for again and again.
    """
    if len(location) > 8192 or not re.fullmatch(r"https?://[!-~]+", location):
        return False
    try:
        parts = urlsplit(location)
    except ValueError:
        return False
    found = _HOST.fullmatch(parts.netloc)
    if found is None or not 1 <= int(found[2] or 443) <= 65535:
        return False
    return _is_host(found[1])


def _is_host(host: str) -> bool:
    """Return whether it is an IP address, or a name that can be looked up."""
    labels = host.removesuffix(".").split(".")
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        elif _NUMBER.fullmatch(labels[-1]):
            socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    return host.startswith("[") or all(map(_LABEL.fullmatch, labels))


def host(address: str) -> str:
    """Return the host of an address, whose rest may be a secret."""
    return urlsplit(address).netloc


def stays_here(url: str) -> bool:
    """Return whether what is sent there stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
