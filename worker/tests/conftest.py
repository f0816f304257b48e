"""A scripted bridge and a runner against it, both ended with the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_bridge import ScriptedBridge

from bridge_worker.attempt import Handler
from bridge_worker.client import BridgeClient
from bridge_worker.runner import Runner


@pytest.fixture
def bridge() -> Iterator[ScriptedBridge]:
    """Return a bridge whose answers the test scripts."""
    scripted = ScriptedBridge()
    yield scripted
    scripted.close()


class Running:
    """A started runner; `ended` is set after its last job."""

    def __init__(self, bridge: ScriptedBridge, handler: Handler, options: dict[str, Any]) -> None:
        self.ended = threading.Event()
        client = BridgeClient(bridge.url, "the-key", "w1")
        self.runner = Runner(client, {"audio": handler}, on_end=self.ended.set, **options)
        self.runner.start()


@pytest.fixture
def run(bridge: ScriptedBridge) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a runner with a handler."""
    started: list[Running] = []

    def start(handler: Handler, **options: Any) -> Running:
        started.append(Running(bridge, handler, options))
        return started[-1]

    yield start
    for running in started:
        running.runner.stop()
    for running in started:
        assert running.ended.wait(20)
