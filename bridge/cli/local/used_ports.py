"""Whether a port is free for what is about to listen there."""

from __future__ import annotations

import socket

from bridge.settings import SettingsError


def refuse_used_port(host: str, port: int, what: str, advice: str) -> None:
    """Refuse a port that another program has: one line instead of a process that starts over and over."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise SettingsError(f"{what}: {host}:{port} cannot be used ({problem.strerror}): {advice}") from None
