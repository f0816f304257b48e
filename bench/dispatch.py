"""How long a parked poll waits for a job, and how many lifecycles per second are reached, on this machine.

`make bench` (`ARGS=--short` for a quick look). It starts a private bridge (embedded servers with fsync, two API
processes, keys on, Celery worker and beat), so the machine must be idle otherwise. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

import psutil
import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.lifecycles import BASE, ROOT, Target, about, bridge, build_client, client, echo, life

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
    build_client()
    seconds, turns, jobs = (3, 1, 60) if short else (20, 4, 120)
    counts = (1, 1000) if short else (1, 1000, 10_000)
    told = about([])
    print(told)
    with bridge("bridge", ROOT, [f"BRIDGE_API_PROCESSES={PROCESSES}"]) as target:
        parked_polls = {count: _Parked() for count in counts}
        print("\nparked polls  median p99 (ms) from the create's answer   from sending the create   create itself")
        _turn(target, 8, jobs)  # what is done once is done
        for turn in range(turns):
            for count in counts[:: -1 if turn % 2 else 1]:  # what came before it differs from turn to turn
                row = _turn(target, count, jobs)
                parked_polls[count].add(row, _memory(target))
                figures = "   ".join(f"{p50:>14.2f} {p99:>10.2f}" for p50, p99 in row)
                print(f"{count:>12}  {figures}", flush=True)
        for count, polls in parked_polls.items():
            medians = sorted(p50 for p50, _ in polls.kinds["from the answer"])
            told_of = f"{statistics.median(medians):.2f} ms ({medians[0]:.2f} to {medians[-1]:.2f})"
            print(f"{count:>12}  from the create's answer {told_of}, memory of the API {polls.memory:.0f} MiB")
        print("\nlifecycles/s (create, claim, result; 32 connections)")
        ours = life(target, 32, seconds).lifecycles
        print(f"      bridge  {ours:8.0f}")
    with echo(str(PROCESSES)) as target:
        bare = life(target, 32, seconds).lifecycles
    print(f"  bare route  {bare:8.0f}   the bridge makes {ours / bare:.0%} of what the server alone makes")
    if asked.json:
        parked = {count: {**polls.kinds, "memory": polls.memory} for count, polls in parked_polls.items()}
        found = {"about": told, "parked": parked, "lifecycles/s: the bridge, the bare route": (ours, bare)}
        asked.json.write_text(json.dumps(found, indent=1))
    return 0


class _Parked:
    """What was seen with so many polls parked: of each turn median and 99 % in ms, and the most memory in MiB."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        self.memory = 0.0

    def add(self, row: list[tuple[float, float]], memory: float) -> None:
        for kind, figures in zip(self.kinds, row, strict=True):
            self.kinds[kind].append(figures)
        self.memory = max(self.memory, memory)


def _turn(target: Target, parked: int, jobs: int) -> list[tuple[float, float]]:
    """Park polls, create jobs, 20 a second, and wait until the polls have gone; return the figures of KINDS."""
    out = client(target, "park", BASE, parked, RATE, jobs, f"park{parked}", 0, 50)
    end = time.monotonic() + 60
    while not _nobody_parked(target) and time.monotonic() < end:
        time.sleep(0.1)
    return [_figures(out, name) for name in KINDS.values()]


def _nobody_parked(target: Target) -> bool:
    return "\nbridge_parked_polls 0.0\n" in requests.get(f"{target.url}/metrics", timeout=30).text


def _figures(out: str, name: str) -> tuple[float, float]:
    """Return median and 99th percentile of one of the client's lines, in ms."""
    found = re.search(rf"^ {name}\s+n=\d+ p50=([\d.]+)ms .*p99=([\d.]+)ms", out, re.MULTILINE)
    if found is None:
        raise SystemExit(f"the load client reported no {name}:\n{out}")
    return float(found[1]), float(found[2])


def _memory(target: Target) -> float:
    """Return the memory of the API processes together, in MiB; shared pages are counted for each."""
    family = psutil.Process(target.master).children(recursive=True)
    api = [process for process in family if any("gunicorn" in word for word in process.cmdline())]
    rss: int = sum(process.memory_info().rss for process in api)
    return rss / 2**20


if __name__ == "__main__":
    sys.exit(main())
