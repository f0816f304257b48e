"""Checks of addresses that something is sent to."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

import requests

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,254})(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")  # as the last label: the whole is an IPv4 address


def is_file_address(location: str, *, unencrypted: bool) -> bool:
    """Return whether a redirect's target may be fetched, without a key; `unencrypted`: plain http is allowed too.

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
    return _is_host(found[1]) and (unencrypted or parts.scheme == "https")


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


def is_loopback(host: str) -> bool:
    """Return whether what is sent to this host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Unredirected(requests.Session):
    """One that has no look at where a redirect leads.

    Not told to follow it, requests' own still reads all of its body and raises where the address is none.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return nowhere."""
