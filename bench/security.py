"""What keys, JSON guard and limits add to a lifecycle (create, claim, result): the API with them against without.

`.venv/bin/python bench/security.py` (`--short` for a look). Both run in turn on one database, several times, and the
CPU seconds of the API process for each lifecycle are compared, which a busy machine disturbs less than the rate.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.dispatch import CLIENT, _client, _processor, _rate  # noqa: E402
from bridge import names  # noqa: E402
from bridge.cli import programs  # noqa: E402
from bridge.cli.family import end_tree, ending_signals  # noqa: E402
from bridge.cli.stack import Stack  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402

APPS = {"guarded": "api.wsgi:app", "unguarded": "bench.unguarded:app"}


def main() -> int:
    """Runs the measurement and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    rounds, seconds = (2, 4) if parser.parse_args().short else (7, 10)
    subprocess.run(["cc", "-O2", "-o", str(CLIENT), str(HERE / "load_client.c")], check=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}")
    spent: dict[str, list[float]] = {name: [] for name in APPS}
    with tempfile.TemporaryDirectory(prefix="jobbridge-bench-") as place, ending_signals() as signals:
        changes = {
            "BRIDGE_DATA_DIR": place,
            "BRIDGE_PORT": str(free_port()),
            "BRIDGE_API_PROCESSES": "1",
            "BRIDGE_LOG_LEVEL": "warning",
        }
        stack = Stack(changes, throw_away=True)
        try:
            stack.migrate()
            key = stack.make_key("bench", ["admin"])
            source = stack.settings.source_roots[0] / "source.bin"
            source.write_bytes(b"x" * 1000)
            load = {**os.environ, "LOAD_KEY": str(key), "LOAD_SOURCE": str(source)}
            for number in range(rounds):
                for name, app in APPS.items():
                    child = stack.family.start("api", [*programs.api()[:-1], app], stack.environment)
                    if not stack.await_api(signals):
                        return 130
                    spent[name].append(_per_lifecycle(stack, load, child.process.pid, f"{name}{number}", seconds))
                    end_tree(child.process, 20)
                    stack.family.children.remove(child)
                    print(f"{name:>10}  {spent[name][-1] * 1000:.3f} ms CPU of the API for a lifecycle", flush=True)
        finally:
            stack.stop()
    with_, without = (statistics.median(spent[name]) for name in APPS)
    print(f"\nmedians: {with_ * 1000:.3f} ms with, {without * 1000:.3f} ms without: {with_ / without - 1:+.1%}")
    return 0


def _per_lifecycle(stack: Stack, load: dict[str, str], master: int, content_type: str, seconds: int) -> float:
    port = str(stack.settings.port)
    _client(["life", port, names.API_BASE, 8, 1, content_type], load)  # connections, caches
    (worker,) = psutil.Process(master).children()
    before, began = sum(worker.cpu_times()[:2]), time.monotonic()
    rate = _rate(_client(["life", port, names.API_BASE, 8, seconds, content_type], load))
    return (sum(worker.cpu_times()[:2]) - before) / (rate * min(seconds, time.monotonic() - began))


if __name__ == "__main__":
    sys.exit(main())
