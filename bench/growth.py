"""The time of a create and a claim with millions of jobs in the database ÷ with none, and of a claim in a burst.

    .venv/bin/python bench/growth.py [--pending 1000000] [--finished 5000000] [--rounds 5] [--json FILE]

Two bridges of one API process take turns: one is empty, the other's database is filled before it starts; both run
lifecycles of one queue, over one connection and over 32. Then, in SQL alone: claims of one job while 200 000 are
pending that came after the last ANALYZE, which saw 100 000 finished jobs and no pending one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import filled
from bench.lifecycles import ROOT, Point, Target, about, bridge, build_client, life
from bridge.driver_statements import DriverStatements
from bridge.jobs.claim import Claimant, claim, next_in_line
from bridge.queues import Queue

CONNECTIONS = (1, 32)
NAMES = ("empty", "filled")
BURST, BEFORE, CLAIMS = 200_000, 100_000, 200
STALE = (
    "ALTER TABLE remote_jobs SET (autovacuum_enabled = false)",
    "ANALYZE remote_jobs",
)


def main() -> int:
    """Measure both, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure: a hundredth of the jobs")
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--finished", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    burst = BURST
    if asked.short:
        asked.pending, asked.finished, asked.seconds, asked.rounds, burst = 10_000, 50_000, 1.0, 1, 2_000
    build_client()
    told = about([f"{asked.pending} pending", f"{asked.finished} finished"])
    print(told, flush=True)
    points = grown(asked.pending, asked.finished, asked.seconds, asked.rounds)
    ratios = {}
    for count in CONNECTIONS:
        empty, full = ([took(one) for one in points[name, count]] for name in NAMES)
        ratios[count] = [one / other for one, other in zip(full, empty, strict=True)]
        print(
            f"{count:>3} connections: create + claim p50 {statistics.median(empty):.2f} ms empty,"
            f" {statistics.median(full):.2f} filled; ratio {statistics.median(ratios[count]):.2f}"
            f" ({min(ratios[count]):.2f}–{max(ratios[count]):.2f})",
            flush=True,
        )
    looks, claims = zip(*stale(burst), strict=True)
    for what, times in (("claim", claims), ("look for the next", looks)):
        middle, most = statistics.median(times), sorted(times)[int(len(times) * 0.99)]
        print(f"a {what} of {burst} jobs on stale statistics: median {middle:.2f} ms, 99 % {most:.2f} ms")
    if asked.json:
        found = [
            {"target": name, "connections": count, **one._asdict()}
            for (name, count), all_ in points.items()
            for one in all_
        ]
        told_all = {"about": told, "points": found, "ratios": ratios, "stale looks": looks, "stale claims": claims}
        asked.json.write_text(json.dumps(told_all, indent=1))
    return 0


def took(point: Point) -> float:
    """Return the medians of a create and a claim together, in ms."""
    return point.p50["create"] + point.p50["poll"]


def grown(pending: int, finished: int, seconds: float, rounds: int) -> dict[tuple[str, int], list[Point]]:
    """Measure the lifecycles of both bridges in turns."""
    points: dict[tuple[str, int], list[Point]] = {}
    with ExitStack() as running:
        place = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="jobbridge-growth-")))
        targets: list[Target] = []
        for name in NAMES:
            servers = running.enter_context(filled.database(place / name))
            if name == "filled":
                began = time.monotonic()
                filled.fill(servers, pending, finished, str(place / "source.bin"))
                print(f"loaded within {time.monotonic() - began:.0f} s", flush=True)
            settings = ["BRIDGE_API_PROCESSES=1", f"BRIDGE_DATABASE_URL={servers.database_url}"]
            settings.append(f"BRIDGE_REDIS_URL={servers.redis_url}")
            targets.append(running.enter_context(bridge(name, ROOT, settings)))
        for target in targets:
            life(target, 32, seconds)  # warm
        for _ in range(rounds):
            for count in CONNECTIONS:
                for target in targets:
                    points.setdefault((target.name, count), []).append(life(target, count, seconds))
    return points


def stale(burst: int) -> list[tuple[float, float]]:
    """Return the times of looking up the next job and of claiming it, with their round trips, in ms."""
    who = Claimant(uuid4(), "w", lease_seconds=60, content_types=filled.TYPE)
    queue = Queue("default", filled.TYPE)
    times = []
    with tempfile.TemporaryDirectory(prefix="jobbridge-growth-") as place, filled.database(Path(place)) as servers:
        engine = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
        driver = DriverStatements(engine)  # as the dispatcher claims
        with filled.loading(servers) as loading:
            filled.load(loading, BEFORE, "/none", ended=True)
        with engine.connect() as connection:
            for statement in STALE:
                connection.execute(text(statement))
            with filled.loading(servers) as loading:
                filled.load(loading, burst, "/none", ended=False)
            for _ in range(CLAIMS):
                began = time.perf_counter()
                (entry,) = next_in_line(connection, {queue: 1}).found[queue]
                looked = time.perf_counter()
                fates = claim(driver, [(entry.job_id, who)], 60)
                times.append((1000 * (looked - began), 1000 * (time.perf_counter() - looked)))
                if not fates.claimed:
                    raise SystemExit("a job that nobody else could have was not claimed")
        engine.dispose()
    return times


if __name__ == "__main__":
    sys.exit(main())
