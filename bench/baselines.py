"""The bridge's lifecycles per second ÷ those of other systems, in one interleaved run.

    .venv/bin/python bench/baselines.py [--seconds 4] [--rounds 5] [--jobs 4000] [--only NAME,…] [--json FILE]

Each round measures, one after the other: the bare Flask-Smorest echo (under gunicorn's gevent class and under the
bridge's own), the bridge (128 and 512 connections), the same with its default log lines, the same with two API
processes, and the others in bench/others. Those of PyPI need
.venv-bench (`make bench-full` makes it); what is not installed is named and left out. All are as durable as they can
be: fsync on; Celery's broker is Valkey, like the bridge's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.lifecycles import OUR_CLASS, ROOT, Target, about, bridge, build_client, echo, life
from bench.others import beanstalkd, pgbench, server
from bridge import embedded

FEW = 4  # connections of the first design: with many it deadlocks
BRIDGE = "bridge, 128 connections"
#: Pairs of dividend and divisor; each ratio is taken within a round.
RATIOS = [
    (BRIDGE, "echo, 128 connections"),
    ("bridge, 512 connections", "echo, 512 connections"),
    (BRIDGE, "echo, the bridge's class, 128 connections"),
    ("bridge, 512 connections", "echo, the bridge's class, 512 connections"),
    ("bridge, info lines, 128 connections", "echo, 128 connections"),
    ("bridge, two processes, 512 connections", "bridge, 512 connections"),
    *((BRIDGE, other) for other in ("first design", "Celery", "procrastinate", "PgQueuer", "pgbench", "beanstalkd")),
]
Measured = dict[str, list[float | None]]  # rates by name, one per round


def main() -> int:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=4000, help="of each drain")
    parser.add_argument("--only", default="", help="parts of names, comma-separated: what else to leave out")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.short:
        asked.seconds, asked.rounds, asked.jobs = 1.0, 1, 500
    build_client()
    told = about([])
    print(told, flush=True)
    rates: Measured = {}
    with everything(asked.seconds, asked.jobs) as all_:
        wanted = {name: turn for name, turn in all_.items() if _is_wanted(name, asked.only)}
        for number in range(asked.rounds):
            for name, turn in wanted.items():
                rate = _tried(name, turn)
                rates.setdefault(name, []).append(rate)
                print(f"  round {number + 1}  {name:40} {f'{rate:8.0f}/s' if rate else 'not measured'}", flush=True)
    ratios = ratios_of(rates)
    for name, all_rates in rates.items():
        print(f"{name:40} {_spread([one for one in all_rates if one], '.0f')}")
    for name, found in ratios.items():
        print(f"{name:80} {_spread(found, '.2f')}")
    if asked.json:
        asked.json.write_text(json.dumps({"about": told, "rates": rates, "ratios": ratios}, indent=1))
    return 0


def _is_wanted(name: str, only: str) -> bool:
    return not only or any(part.strip() in name for part in only.split(","))


def _tried(name: str, turn: Callable[[], float | None]) -> float | None:
    """Run one turn; report a failure without stopping the others."""
    try:
        return turn()
    except SystemExit as problem:
        print(f"  {name}: {problem}", file=sys.stderr, flush=True)
        return None


def ratios_of(rates: Measured) -> dict[str, list[float]]:
    """Return each of RATIOS by round, without the rounds in which one of the two is missing."""
    found = {}
    for of, by in RATIOS:
        pairs = zip(rates.get(of, []), rates.get(by, []), strict=False)
        if made := [one / other for one, other in pairs if one and other]:
            found[f"{of} ÷ {by}"] = made
    return found


def _spread(values: list[float], how: str) -> str:
    if not values:
        return "not measured"
    return f"{statistics.median(values):{how}} ({min(values):{how}}–{max(values):{how}})"


@contextmanager
def everything(seconds: float, jobs: int) -> Iterator[dict[str, Callable[[], float | None]]]:
    """Yield what is measured, by name: a function that returns its rate, or None if something is not installed."""
    with ExitStack() as running:
        place = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="jobbridge-baselines-")))
        one, two, info = (
            running.enter_context(bridge(name, ROOT, settings))
            for name, settings in (
                ("one", ["BRIDGE_API_PROCESSES=1"]),
                ("two", ["BRIDGE_API_PROCESSES=2"]),
                ("info", ["BRIDGE_API_PROCESSES=1", "BRIDGE_LOG_LEVEL=info"]),
            )
        )
        bare, bare_ours = running.enter_context(echo()), running.enter_context(echo(worker_class=OUR_CLASS))
        servers = embedded.start(place / "servers", keep=False)
        running.callback(servers.stop)
        database, broker = servers.database_url, servers.redis_url
        for target in (one, two, info, bare, bare_ours):
            life(target, 32, min(2.0, seconds))  # warm

        def lives(target: Target, connections: int) -> float:
            return life(target, connections, seconds).lifecycles

        turns: dict[str, Callable[[], float | None]] = {
            "echo, 128 connections": partial(lives, bare, 128),
            "echo, the bridge's class, 128 connections": partial(lives, bare_ours, 128),
            BRIDGE: partial(lives, one, 128),
            "bridge, info lines, 128 connections": partial(lives, info, 128),
            "echo, 512 connections": partial(lives, bare, 512),
            "echo, the bridge's class, 512 connections": partial(lives, bare_ours, 512),
            "bridge, 512 connections": partial(lives, one, 512),
            "bridge, two processes, 512 connections": partial(lives, two, 512),
            "Celery": partial(server.celery_drain, broker, place, jobs),
            "pgbench": partial(pgbench.lifecycles, database, place, seconds),
            "beanstalkd": partial(beanstalkd.lifecycles, place, seconds),
        }
        if not server.PYTHON.exists():
            print(f"no {server.PYTHON.parent.parent.name}: without the first design, procrastinate and PgQueuer")
        else:
            port, pid = running.enter_context(server.first_design(database, place))
            turns["first design"] = partial(lives, Target("first design", port, dict(os.environ), pid), FEW)
            turns["procrastinate"] = partial(server.drain_of, "procrastinate_noops.py", database, jobs // 4)
            turns["PgQueuer"] = partial(server.drain_of, "pgqueuer_noops.py", database, jobs)
        if beanstalkd.missing():
            print("beanstalkd is not installed (apt-get install -y beanstalkd): left out")
            del turns["beanstalkd"]
        yield turns


if __name__ == "__main__":
    sys.exit(main())
