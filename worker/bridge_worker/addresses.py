"""Checks of addresses that something is sent to."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit


def is_file_address(location: str, *, unencrypted: bool) -> bool:
    """Return whether a redirect's target may be fetched, without a key; `unencrypted`: plain http is allowed too."""
    if len(location) > 8192 or not re.fullmatch(r"https?://[!-~]+", location):
        return False
    try:
        parts = urlsplit(location)
        return bool(parts.hostname) and "@" not in parts.netloc and (unencrypted or parts.scheme == "https")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether what is sent to this host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
