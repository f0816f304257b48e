"""Requests from this machine itself, and those that a web page of another site makes a browser on it send."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import request

from bridge.errors import Forbidden

# Headers that proxies add; every proxy adds at least one of them.
FORWARDED = ("FORWARDED", "VIA", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_REAL_IP")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")
OWN = ("", "same-origin", "none")  # no browser; a page of the bridge; an address typed by the user


def from_here() -> bool:
    """Return whether this request comes from this machine itself: through no proxy, and not under a foreign name."""
    peer = request.remote_addr or ""
    forwarded = any(f"HTTP_{name}" in request.environ for name in FORWARDED)
    return not forwarded and _is_loopback(peer) and is_local(request.environ.get("HTTP_HOST", ""))


def refuse_web_pages(anywhere: bool) -> None:
    """Refuse, where no keys are in use, what a page of another site may have sent. Raises Forbidden.

    A browser sends such a request with its user's access. A page can pose as ours under a name that is not local (DNS
    rebinding); `anywhere`: the bridge is meant to have other names.
    """
    host = request.environ.get("HTTP_HOST", "")
    if not anywhere and not is_local(host):
        raise Forbidden("With BRIDGE_AUTH=off, only local host names are accepted: localhost, 127.0.0.1.")
    foreign = request.environ.get("HTTP_SEC_FETCH_SITE", "") not in OWN
    for sent in (request.environ.get("HTTP_ORIGIN"), request.environ.get("HTTP_REFERER")):
        foreign |= sent is not None and _authority(sent) != host.lower()
    if foreign:
        raise Forbidden("With BRIDGE_AUTH=off, requests from web pages of other sites are refused.")


def from_another_site() -> bool:
    """Return whether a page of another site made a browser send this request, as far as the browser tells."""
    if (told := request.environ.get("HTTP_SEC_FETCH_SITE")) is not None:
        return told not in OWN
    origin = request.environ.get("HTTP_ORIGIN")
    return origin is not None and _authority(origin) != request.environ.get("HTTP_HOST", "").lower()


def is_local(host: str) -> bool:
    """Return whether a Host header names this machine by a local name."""
    if (spelled := _HOST.fullmatch(host.lower())) is None:
        return False  # `evil@localhost` and the like are not names
    name = spelled[1].strip("[]")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _authority(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
