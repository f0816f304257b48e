"""The bridge's address and key, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
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
    return url.rstrip("/")


def is_address(location: str) -> bool:
    """Return whether a redirect's target may be fetched, without a key."""
    if len(location) > 8192 or not re.fullmatch(r"https?://[!-~]+", location):
        return False
    try:
        parts = urlsplit(location)
        return bool(parts.hostname) and "@" not in parts.netloc and (parts.port or 1) > 0
    except ValueError:
        return False


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
