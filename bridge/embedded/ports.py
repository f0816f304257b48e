"""A free port of loopback."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that was free a moment ago; the kernel hands them out in turn, so a clash is improbable."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
