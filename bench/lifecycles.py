"""Lifecycles per second (create, claim, result) ÷ those of the bare Flask-Smorest echo, in one interleaved run.

    .venv/bin/python bench/lifecycles.py [--short] [--against DIR] [--setting NAME=value]

Each round measures the echo, this checkout and, with `--against`, another one, one after the other, at each number of
connections; a table shows the medians of the rounds with their spread. A point in which requests are refused is named
and left out. One API process, keys, guard and limits on, fsync on. Only ratios within one run are meaningful: the
machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CLIENT = HERE / "load_client"
BASE = "/api/v1/remote-jobs"
PHASES = ("create", "poll", "result")
OUR_CLASS = "api.gunicorn_worker.Worker"


class Target(NamedTuple):
    """What is measured, and how the load client reaches it."""

    name: str
    port: int
    environment: dict[str, str]
    master: int  # the process ID of gunicorn's master, or of its parent

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return self.environment["LOAD_KEY"]

    @property
    def source(self) -> str:
        return self.environment["LOAD_SOURCE"]


class Point(NamedTuple):
    """The figures of one run of the load client."""

    lifecycles: float  # per second
    p50: dict[str, float]  # ms, by phase
    p99: dict[str, float]
    cpu: float = 0.0  # µs of the server's processes per lifecycle; more reliable than the time on a busy machine


#: By target and number of connections, one a round; None: requests were refused.
Points = dict[tuple[str, int], list[Point | None]]


def main() -> int:
    """Measure, and print a table; with `--json`, also write a file of every point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--against", type=Path, help="another installed checkout to measure in the same run")
    parser.add_argument("--connections", default="1,32,128,512")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", default="1", help="API processes; also of the echo")
    parser.add_argument("--setting", action="append", default=[], help="of the bridge, such as BRIDGE_LOG_LEVEL=info")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.short:
        asked.seconds, asked.rounds = 2.0, 1
    build_client()
    connections = [int(count) for count in asked.connections.split(",")]
    settings = [f"BRIDGE_API_PROCESSES={asked.processes}", *asked.setting]
    print(about(asked.setting))
    with ExitStack() as running:
        targets = [running.enter_context(echo(asked.processes))]
        targets.append(running.enter_context(bridge("bridge", ROOT, settings)))
        if asked.against:
            targets.append(running.enter_context(bridge("against", asked.against.resolve(), settings)))
        for target in targets:
            life(target, 32, 2.0)  # warm
        points = measure(targets, connections, asked.seconds, asked.rounds)
    show(points, connections)
    if asked.json:
        found = [
            {"target": name, "connections": count, "round": number, **one._asdict()}
            for (name, count), all_ in points.items()
            for number, one in enumerate(all_)
            if one is not None
        ]
        asked.json.write_text(json.dumps({"about": about(asked.setting), "points": found}, indent=1))
    return 0


def measure(targets: list[Target], connections: list[int], seconds: float, rounds: int) -> Points:
    """Measure every target at every number of connections, in turns."""
    points: Points = {}
    for _ in range(rounds):
        for count in connections:
            for target in targets:
                points.setdefault((target.name, count), []).append(_tried(target, count, seconds))
    return points


def _tried(target: Target, count: int, seconds: float) -> Point | None:
    """Measure a point; one that fails is reported, and the others go on."""
    try:
        return life(target, count, seconds)
    except SystemExit as problem:
        print(f"{target.name}, {count} connections: {problem}", file=sys.stderr, flush=True)
        return None


def show(points: Points, connections: list[int]) -> None:
    """Print the medians with their spread, and the ratios to the echo within each round."""
    names = list(dict.fromkeys(name for name, _ in points))
    print(
        f"\n{'connections':>11}  {'target':>8}  {'lifecycles/s':>20}  {'÷ echo':>18}  {'CPU, µs':>18}  p50, p99 in ms"
    )
    for count in connections:
        for name in names:
            of_it = [one for one in points[name, count] if one]
            both = zip(points[name, count], points["echo", count], strict=True)
            rates = [one.lifecycles for one in of_it]
            ratios = [one.lifecycles / bare.lifecycles for one, bare in both if one and bare and bare.lifecycles]
            if not ratios:
                print(f"{count:>11}  {name:>8}  not measured")
                continue
            tails = ", ".join(
                f"{phase} {statistics.median(one.p50[phase] for one in of_it):.1f}/"
                f"{statistics.median(one.p99[phase] for one in of_it):.1f}"
                for phase in PHASES
            )
            cpu = _spread([one.cpu for one in of_it], ".0f")
            print(
                f"{count:>11}  {name:>8}  {_spread(rates, '.0f'):>20}  {_spread(ratios, '.2f'):>18}  {cpu:>18}  {tails}"
            )


def _spread(values: list[float], how: str) -> str:
    return f"{statistics.median(values):{how}} ({min(values):{how}}–{max(values):{how}})"


def about(settings: list[str]) -> str:
    """Return the date, the commit, the machine, the load and the settings as text."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit.strip()}, {platform.machine()},"
        f" {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}, load {load}"
        + "".join(f", {one}" for one in settings)
    )


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def build_client() -> None:
    """Compile the load client if its source is newer."""
    source = HERE / "load_client.c"
    if not CLIENT.exists() or CLIENT.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-w", "-o", str(CLIENT), str(source)], check=True)


def life(target: Target, connections: int, seconds: float) -> Point:
    """Run lifecycles for this long. Raises SystemExit if a request was refused."""
    before = _cpu(target)
    out = client(target, "life", BASE, connections, seconds, "life")
    spent = _cpu(target) - before
    rate = re.search(r"lifecycles/s=(\d+) .*err=(\d+)", out)
    if rate is None or int(rate[2]):
        raise SystemExit(f"the load client met errors:\n{out}")
    found = {phase: re.search(rf"^ {phase}\s+n=\d+ p50=([\d.]+)ms .*p99=([\d.]+)ms", out, re.M) for phase in PHASES}
    times = {phase: (float(one[1]), float(one[2])) for phase, one in found.items() if one}
    number = re.search(r"^ result\s+n=(\d+)", out, re.M)
    each = 1e6 * spent / max(1, int(number[1]) if number else 1)
    return Point(float(rate[1]), {p: t[0] for p, t in times.items()}, {p: t[1] for p, t in times.items()}, each)


def _cpu(target: Target) -> float:
    """Return the CPU seconds of the API's processes so far."""
    family = psutil.Process(target.master).children(recursive=True)
    return sum(
        sum(one.cpu_times()[:2])
        for one in family
        if any("gunicorn" in word or "jobbridge-api" in word for word in one.cmdline())
    )


def client(target: Target, what: str, *arguments: object) -> str:
    """Run the load client and return its output. Raises SystemExit if it failed."""
    command = [str(CLIENT), what, str(target.port), *map(str, arguments)]
    done = subprocess.run(command, env=target.environment, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode or "HTTP " in done.stderr:
        raise SystemExit(f"{command}: status {done.returncode}\n{done.stderr[:2000]}")
    return done.stdout


@contextmanager
def bridge(name: str, checkout: Path, settings: list[str]) -> Iterator[Target]:
    """Run a private bridge of a checkout."""
    command = [str(checkout / ".venv/bin/python"), str(HERE / "one_bridge.py"), *settings]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the bridge of {checkout} did not start")
            told: dict[str, Any] = json.loads(line)
            # The load client reads the first two.
            where = {"LOAD_KEY": told["key"], "LOAD_SOURCE": told["source"]}
            where |= {"LOAD_REDIS": told["redis"], "LOAD_DATABASE": told["database"]}
            environment = {**os.environ, **where}
            yield Target(name, told["port"], environment, process.pid)
        finally:
            process.stdin.close()
            process.wait(60)


@contextmanager
def echo(processes: str = "1", worker_class: str = "gevent") -> Iterator[Target]:
    """Run the bare echo, under gunicorn's own gevent worker unless another class is named."""
    from bridge.embedded.ports import free_port

    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "-k", worker_class, "-w", processes, "-b", f"127.0.0.1:{port}",
        "--worker-connections", "2000", "--keep-alive", "75", "--no-control-socket",
        "--log-level", "warning", "bench.echo:app",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        end = time.monotonic() + 30
        while not _answers(f"http://127.0.0.1:{port}{BASE}/poll?worker_id=w&content_types=a"):
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit("the echo did not start")
            time.sleep(0.1)
        yield Target("echo", port, dict(os.environ), process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


if __name__ == "__main__":
    sys.exit(main())
