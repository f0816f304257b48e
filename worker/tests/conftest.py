"""A scripted bridge and a runner against it, both ended with the test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_bridge import ScriptedBridge, claim
from waiting import LATEST, until

from bridge_worker.claim import read_claim
from bridge_worker.client import BridgeClient
from bridge_worker.health import Health
from bridge_worker.held import Held
from bridge_worker.process import Setup
from bridge_worker.runner import Runner
from bridge_worker.slots import Slots


@pytest.fixture
def bridge() -> Iterator[ScriptedBridge]:
    """Return a bridge whose answers the test scripts."""
    scripted = ScriptedBridge()
    yield scripted
    scripted.close()


@pytest.fixture
def elsewhere() -> Iterator[ScriptedBridge]:
    """Return another server beside the bridge."""
    other = ScriptedBridge()
    yield other
    other.close()


@pytest.fixture
def client(bridge: ScriptedBridge) -> BridgeClient:
    return BridgeClient(bridge.url, "the-key", "w1")


@pytest.fixture
def held() -> Held:
    """Return a job that this worker holds."""
    return Held(read_claim(claim()))


@pytest.fixture
def command(bridge: ScriptedBridge, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """Return a function that starts the command, which can import `conversions`, in the test's directory.

    It returns the process and its log.
    """
    processes: list[subprocess.Popen[str]] = []
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

    def start(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], Path]:
        own = {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": "the-key", "TMPDIR": str(tmp_path), "PYTHONPATH": paths}
        place = tmp_path / f"log-{len(processes)}"
        with place.open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "bridge_worker", *arguments],
                    cwd=tmp_path,
                    env=os.environ | own | environment,
                    stderr=log,
                    text=True,
                )
            )
        return processes[-1], place

    yield start
    for process in processes:
        process.kill()
        process.wait()


class Running:
    """A started runner; `ended` is set after its last job."""

    def __init__(self, bridge: ScriptedBridge, place: Path, handler: str, options: dict[str, Any]) -> None:
        self.ended = threading.Event()
        self.outcomes: list[str] = []
        client = BridgeClient(bridge.url, "the-key", "w1")
        wait, ending = options.pop("wait", 30), options.pop("ending", 30.0)
        of_slots = {name: options.pop(name) for name in ("lease", "jobs_per_process", "most") if name in options}
        count = options.pop("concurrency", 1)
        setup = Setup({"audio": f"conversions:{handler}"}, {"dir": str(place)}, **{"cancel_seconds": 1.0, **options})
        self.slots = Slots(
            client,
            setup,
            Path(tempfile.mkdtemp(prefix="work-", dir=place)),
            count,
            on_outcome=self._ended,
            on_process_end=lambda: self.health.process_ended(),
            **of_slots,
        )
        self.runner = Runner(client, self.slots, setup.handlers, wait=wait, ending=ending, on_end=self.ended.set)
        self.health = Health("w1", count)
        self.health.watch(self.slots, self.runner)
        self.slots.start_all()
        self.runner.start()

    def _ended(self, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)
        self.health.outcome(outcome, seconds)

    def has_failed(self) -> bool:
        """Wait for the end; return whether it was a failure."""
        assert self.ended.wait(30)
        return self.runner.failed

    def stop(self, drain: float | None = None) -> None:
        """Stop, and wait for the end."""
        self.runner.stop(drain)
        assert self.ended.wait(30)


@pytest.fixture
def run(bridge: ScriptedBridge, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a runner with a handler of `conversions`."""
    started: list[Running] = []

    def start(handler: str, **options: Any) -> Running:
        started.append(Running(bridge, tmp_path, handler, options))
        return started[-1]

    yield start
    for running in started:
        running.runner.stop(0)
    for running in started:
        assert running.ended.wait(30)
        running.slots.close()
        running.health.close()


@pytest.fixture
def appears(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that waits for a file of a handler."""

    def wait(name: str, seconds: float = LATEST) -> Path:
        until((tmp_path / name).exists, f"{name} did not appear", seconds)
        return tmp_path / name

    return wait
