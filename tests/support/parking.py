"""Polls that wait, each on a bare socket: hundreds of them cost a test neither threads nor libraries."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from tests.support.client import Client
from tests.support.waiting import wait_until


def park(client: Client, content_types: str, worker_id: str = "idle", wait: int = 60) -> socket.socket:
    """Send a waiting poll and leave its answer unread."""
    query = urlencode({"worker_id": worker_id, "content_types": content_types, "wait": wait, "lease": 60})
    return client.begin("GET", f"poll?{query}")


def parked(client: Client) -> int:
    """How many polls wait in the whole bridge, as its metrics tell."""
    lines = client.get("/metrics").text.splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.split()[0] == "bridge_parked_polls"))


@contextmanager
def parking(client: Client, polls: list[str]) -> Iterator[list[socket.socket]]:
    """Let a poll for each of these content types wait while the block runs."""
    wait_until(lambda: parked(client) == 0, "nobody to wait")
    sockets = [park(client, content_types, f"idle-{n}") for n, content_types in enumerate(polls)]
    try:
        wait_until(lambda: parked(client) == len(polls), f"{len(polls)} parked polls")
        yield sockets
    finally:
        for each in sockets:
            each.close()
