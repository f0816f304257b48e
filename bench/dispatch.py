"""How long a parked poll waits for a job, and how many lifecycles per second are reached, on this machine.

`make bench` (`ARGS=--short` for a quick look). It starts a private bridge (embedded servers with fsync, two API
processes, keys on, Celery worker and beat), so the machine must be idle otherwise. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.lifecycles import about  # noqa: E402
from bridge import names  # noqa: E402
from bridge.cli.local.stack import Stack  # noqa: E402
from bridge.cli.local.supervisor import Family, Signals, ending_signals, wait_until  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402

CLIENT = HERE / "load_client"
PROCESSES = 2
RATE = 20  # jobs a second
KINDS = {"from the answer": "from_answer", "from sending": "dispatch", "create": "create"}  # as the client says it


def main() -> int:
    """Run the measurements; return 1 if one could not be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure: a tenth of the time")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    short = asked.short
    subprocess.run(["cc", "-O2", "-o", str(CLIENT), str(HERE / "load_client.c")], check=True)
    seconds, turns, jobs = (3, 1, 60) if short else (20, 4, 120)
    counts = (1, 1000) if short else (1, 1000, 10_000)
    place = Path(tempfile.mkdtemp(prefix="jobbridge-bench-"))
    told = about([])
    print(told)
    try:
        with ending_signals() as signals, _bridge(place, signals) as (stack, environment):
            port = str(stack.settings.port)
            parked_polls = {count: _Parked() for count in counts}
            print("\nparked polls  median p99 (ms) from the create's answer   from sending the create   create itself")
            _turn(stack, signals, environment, 8, jobs)  # what is done once is done
            for turn in range(turns):
                for count in counts[:: -1 if turn % 2 else 1]:  # what came before it differs from turn to turn
                    row = _turn(stack, signals, environment, count, jobs)
                    parked_polls[count].add(row)
                    figures = "   ".join(f"{p50:>14.2f} {p99:>10.2f}" for p50, p99 in row)
                    print(f"{count:>12}  {figures}", flush=True)
            for count, polls in parked_polls.items():
                medians = sorted(p50 for p50, _ in polls.kinds["from the answer"])
                told_of = f"{statistics.median(medians):.2f} ms ({medians[0]:.2f} to {medians[-1]:.2f})"
                print(f"{count:>12}  from the create's answer {told_of}, memory of the API {polls.memory:.0f} MiB")
            print("\nlifecycles/s (create, claim, result; 32 connections)")
            bridge = _rate(_client(["life", port, names.API_BASE, 32, seconds, "life"], environment))
            print(f"      bridge  {bridge:8.0f}")
        with ending_signals() as signals, _echo(place, signals) as port:
            bare = _rate(_client(["life", port, names.API_BASE, 32, seconds, "life"], environment))
        print(f"  bare route  {bare:8.0f}   the bridge makes {bridge / bare:.0%} of what the server alone makes")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if asked.json:
        parked = {count: {**polls.kinds, "memory": polls.memory} for count, polls in parked_polls.items()}
        found = {"about": told, "parked": parked, "lifecycles/s: the bridge, the bare route": (bridge, bare)}
        asked.json.write_text(json.dumps(found, indent=1))
    return 0


class _Parked:
    """What was seen with so many polls parked: of each turn median and 99 % in ms, and the most memory in MiB."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        self.memory = 0.0

    def add(self, row: list[tuple[float, float]]) -> None:
        for kind, figures in zip(self.kinds, row, strict=True):
            self.kinds[kind].append(figures)
        self.memory = max(self.memory, _memory())


def _turn(
    stack: Stack, signals: Signals, environment: dict[str, str], parked: int, jobs: int
) -> list[tuple[float, float]]:
    """Park polls, create jobs, 20 a second, and wait until the polls have gone; return the figures of KINDS."""
    arguments = ["park", stack.settings.port, names.API_BASE, parked, RATE, jobs, f"park{parked}", 0, 50]
    out = _client(arguments, environment)
    wait_until(lambda: _nobody_parked(stack.url), signals, stack.family, 60)
    return [_figures(out, name) for name in KINDS.values()]


def _nobody_parked(url: str) -> bool:
    return "\nbridge_parked_polls 0.0\n" in requests.get(f"{url}/metrics", timeout=30).text


@contextmanager
def _bridge(place: Path, signals: Signals) -> Iterator[tuple[Stack, dict[str, str]]]:
    """Run a bridge with a key; yield it and the load client's environment for it."""
    changes = {
        "BRIDGE_DATA_DIR": str(place),
        "BRIDGE_PORT": str(free_port()),
        "BRIDGE_API_PROCESSES": str(PROCESSES),
        "BRIDGE_LOG_LEVEL": "warning",
        "BRIDGE_ACK_SECONDS": "3600",  # nobody processes what is claimed here: the workers would soon be paused
    }
    stack = Stack(changes, throw_away=True)
    try:
        stack.migrate()
        key = stack.make_key("bench", ["admin"])
        stack.start_processes()
        if not stack.await_api(signals):
            raise SystemExit(130)
        with redis.Redis.from_url(stack.settings.require("redis_url")) as mirror:
            # Until a repair has run, claims come from PostgreSQL once a second: not what is to be measured.
            epoch = f"{stack.settings.redis_prefix}:epoch"
            wait_until(lambda: bool(mirror.exists(epoch)), signals, stack.family, 60)
        source = stack.settings.source_roots[0] / "source.bin"
        source.write_bytes(b"x" * 1000)
        yield stack, {**os.environ, "LOAD_KEY": str(key), "LOAD_SOURCE": str(source)}
    finally:
        stack.stop()


@contextmanager
def _echo(place: Path, signals: Signals) -> Iterator[str]:
    """Run the bare route under gunicorn and gevent with as many processes; yield its port."""
    port = free_port()
    family = Family(place / "logs")
    arguments = [
        sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(PROCESSES), "-b", f"127.0.0.1:{port}",
        "--worker-connections", "2000", "--keep-alive", "75", "--no-control-socket", "bench.echo:app",
    ]  # fmt: skip
    try:
        family.start("echo", arguments, os.environ, cwd=HERE.parent)
        url = f"http://127.0.0.1:{port}{names.API_BASE}/poll?worker_id=w&content_types=a"
        wait_until(lambda: _answers(url), signals, family, 30.0)
        yield str(port)
    finally:
        family.stop()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _client(arguments: list[object], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(CLIENT), *map(str, arguments)], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode or "HTTP " in done.stderr:
        raise SystemExit(f"load_client {arguments}: status {done.returncode}\n{done.stderr[:2000]}")
    return done.stdout


def _figures(out: str, name: str) -> tuple[float, float]:
    """Return median and 99th percentile of one of the client's lines, in ms."""
    found = re.search(rf"^ {name}\s+n=\d+ p50=([\d.]+)ms .*p99=([\d.]+)ms", out, re.MULTILINE)
    if found is None:
        raise SystemExit(f"the load client reported no {name}:\n{out}")
    return float(found[1]), float(found[2])


def _rate(out: str) -> float:
    found = re.search(r"lifecycles/s=(\d+) .*err=(\d+)", out)
    if found is None or int(found[2]):
        raise SystemExit(f"the load client met errors:\n{out}")
    return float(found[1])


def _memory() -> float:
    """Return the memory of the API processes together, in MiB; shared pages are counted for each."""
    ours = psutil.Process().children(recursive=True)
    api = [process for process in ours if any("gunicorn" in word for word in process.cmdline())]
    rss: int = sum(process.memory_info().rss for process in api)
    return rss / 2**20


if __name__ == "__main__":
    sys.exit(main())
