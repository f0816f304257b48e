"""What keys, JSON guard and limits add to a claim: a `GET /poll` that gets a job, with and without the three.

`.venv/bin/python bench/security.py` (`--short` for a look). Two API processes, one with and one without, use the
same database; short rounds go to each in turn (A B B A …), of claims alone: the jobs are created beforehand, not
through the API. A pair of rounds gives one ratio, and the median of the ratios is the figure, so that other load on the
machine affects both sides alike; both processes are restarted several times, because one may be a little slower than
its twin for its whole life. CPU time is that of the API process. `--noise` runs the same on both sides: it prints what
the method cannot distinguish from zero.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from sqlalchemy import text

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.lifecycles import BASE, Target, _answers, build_client, client, processor  # noqa: E402
from bridge.cli.local import command_lines  # noqa: E402
from bridge.cli.local.stack import Stack  # noqa: E402
from bridge.cli.local.supervisor import Child, Signals, ending_signals, wait_until  # noqa: E402
from bridge.db import make_engine  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402
from bridge.jobs.enqueue import enqueue_batch  # noqa: E402
from bridge.jobs.fields import CreateFields  # noqa: E402
from bridge.mirror.lists import Mirror  # noqa: E402
from bridge.names import DEFAULT_TENANT  # noqa: E402
from bridge.runtime import Runtime  # noqa: E402
from models.job import metadata  # noqa: E402

GUARDED, UNGUARDED = "api.wsgi:app", "bench.unguarded:app"
CONTENT_TYPE = "claimed"
EACH = 400  # claims in a round
PAIRS = {1: 5, 8: 15}  # of rounds per start of the processes, by connections


class Round(NamedTuple):
    """Seconds per claim."""

    cpu: float
    wall: float


class Side:
    """One of the two API processes."""

    def __init__(self, stack: Stack, app: str, load: dict[str, str]) -> None:
        self.port = free_port()
        environment = {
            **stack.environment,
            "BRIDGE_PORT": str(self.port),
            "BRIDGE_DATA_DIR": f"{stack.settings.data_dir}/{self.port}",
            "BRIDGE_SOURCE_ROOTS": str(stack.settings.source_roots[0]),
        }
        self.child: Child = stack.family.start(f"api-{self.port}", [*command_lines.api()[:-1], app], environment)
        self._load = load

    @property
    def ready(self) -> bool:
        return _answers(f"http://127.0.0.1:{self.port}/readyz")

    def round(self, connections: int) -> Round:
        (process,) = psutil.Process(self.child.process.pid).children()
        target = Target("side", self.port, self._load, process.pid)
        before = _on_cpu(process.pid)
        out = client(target, "claim", BASE, connections, EACH, CONTENT_TYPE)
        cpu = _on_cpu(process.pid) - before
        found = re.search(rf"n={EACH} seconds=([\d.]+) empty=0 err=0", out)
        if found is None:
            raise SystemExit(f"not every poll claimed a job:\n{out}")
        return Round(cpu / EACH, float(found[1]) / EACH)


def main() -> int:
    """Run the measurement and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--noise", action="store_true", help="keys, guard and limits on both sides")
    given = parser.parse_args()
    build_client()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}")
    rounds: dict[int, list[tuple[Round, Round]]] = {connections: [] for connections in PAIRS}
    with ending_signals() as signals, _bench() as bench:
        for _ in range(1 if given.short else 6):
            with bench.sides(GUARDED if given.noise else UNGUARDED, signals) as sides:
                for connections, pairs in PAIRS.items():
                    rounds[connections] += _pairs(bench, *sides, connections, pairs)
    for connections, found in rounds.items():
        _report(connections, found)
    return 0


def _pairs(bench: Bench, with_: Side, without: Side, connections: int, pairs: int) -> Iterator[tuple[Round, Round]]:
    for n in range(-1, pairs):
        found = {}
        for side in (with_, without) if n % 2 else (without, with_):
            bench.make_jobs()
            found[side] = side.round(connections)
        if n >= 0:  # the first pair warms up
            yield found[with_], found[without]


def _report(connections: int, rounds: list[tuple[Round, Round]]) -> None:
    print(f"\n{len(rounds)} pairs of {EACH} claims, {connections} connection(s), load {os.getloadavg()[0]:.1f}")
    for number, name in enumerate(("CPU of the API", "wall")):
        ratios = sorted(with_[number] / without[number] for with_, without in rounds)
        low, median, high = statistics.quantiles(ratios, n=4)
        ms = [statistics.median(pair[side][number] for pair in rounds) * 1000 for side in (0, 1)]
        spread = f"half of the pairs {low - 1:+.1%} to {high - 1:+.1%}"
        print(f"  {name:>14}  {ms[0]:.3f} ms with, {ms[1]:.3f} ms without: {median - 1:+.1%} ({spread})")


class Bench:
    """The database that both sides use."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._engine = make_engine(stack.settings)
        mirror = Mirror(stack.settings.require("redis_url"), stack.settings.redis_prefix, "bench")
        self._runtime = Runtime(stack.settings, self._engine, mirror, lambda _: None)
        source = stack.settings.source_roots[0] / "source.bin"
        source.write_bytes(b"x" * 1000)
        fields = {"source_file_path": str(source), "ingestion_task_id": "t", "task_options": {"model": "base"}}
        self._job = CreateFields().load({**fields, "content_type": CONTENT_TYPE})
        self._load = {**os.environ, "LOAD_KEY": str(stack.make_key("bench", ["work"]))}

    def make_jobs(self) -> None:
        """Replace the jobs of the last round by new ones."""
        tables = ", ".join(table.name for table in metadata.sorted_tables if table.name != "api_keys")
        with self._engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables} CASCADE"))
        enqueue_batch(self._runtime, DEFAULT_TENANT, [self._job] * EACH)

    @contextmanager
    def sides(self, without: str, signals: Signals) -> Iterator[tuple[Side, Side]]:
        """Run the two API processes."""
        family = self._stack.family
        both = Side(self._stack, GUARDED, self._load), Side(self._stack, without, self._load)
        try:
            if not wait_until(lambda: all(side.ready for side in both), signals, family, 60.0):
                raise SystemExit(130)
            yield both
        finally:
            family.stop()


@contextmanager
def _bench() -> Iterator[Bench]:
    place = tempfile.TemporaryDirectory(prefix="jobbridge-bench-")
    changes = {
        "BRIDGE_DATA_DIR": place.name,
        "BRIDGE_PORT": str(free_port()),
        "BRIDGE_API_PROCESSES": "1",
        "BRIDGE_LOG_LEVEL": "warning",
        # The limits count, but are never reached.
        "BRIDGE_LIMITS": "requests=100000000,in_hand=10000000,pending=10000000",
    }
    # Without waiting for the disk, which is not the question: with it the ratio would only be smaller.
    stack = Stack(changes, throw_away=True, fsync=False)
    try:
        stack.migrate()
        yield Bench(stack)
    finally:
        stack.stop()
        place.cleanup()


def _on_cpu(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, exact to nanoseconds where /proc/<pid>/stat counts ticks."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


if __name__ == "__main__":
    sys.exit(main())
