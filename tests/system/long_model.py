"""A million steps of the model, the processes that make them killed again and again: `make model STEPS=…`.

The steps run in a child process, which a dice of this one kills with SIGKILL, wherever it is; then every job in the
database is sound, the counters equal a full count before and after they are folded, and a new child goes on. What the
killed one left in the middle is a day older by then: the next one's sweeps end it. Each core of the machine has such a
child, on a database of its own. Exit status 1 when anything differs.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bridge import embedded
from bridge.db import make_engine
from bridge.insight import counters
from bridge.mirror.lists import Mirror
from bridge.runtime import Runtime
from bridge.settings import load_settings
from models import migrations
from tests.support.core import Core
from tests.support.machine import SETTINGS, drive
from tests.support.own_database import own_database
from tests.support.rights import give_rights
from tests.support.sound import all_sound
from tests.support.waiting import wait_until

ENDLESS = 10**9


class Report(NamedTuple):
    """How many steps were made, and how often the process that made them was killed."""

    steps: int
    kills: int


def core_at(database_url: str, redis_url: str, files: Path) -> Core:
    """Return the core on this database, with the settings that the model expects."""
    given = {f"BRIDGE_{name.upper()}": value for name, value in SETTINGS.items()}
    settings = load_settings(
        {
            "BRIDGE_DATABASE_URL": database_url,
            "BRIDGE_REDIS_URL": redis_url,
            "BRIDGE_SOURCE_ROOTS": str(files),
            "BRIDGE_CONTINUATION_TASK": "pipeline.receive",
            **given,
        }
    )
    return Core(Runtime(settings, make_engine(settings), Mirror(redis_url, "model", "p"), lambda job_ids: None))


def run_with_kills(
    database_url: str,
    redis_url: str,
    place: Path,
    *,
    seed: int,
    kills: int = ENDLESS,
    steps: int = ENDLESS,
    longest: float = 20,
    over: Callable[[], bool] = lambda: False,
) -> Report:
    """Until so many kills, at least so many steps, or `over`. Raises AssertionError when anything differs."""
    dice = random.Random(seed)
    core = core_at(database_url, redis_url, place)
    counter = place / "steps"  # as long as there were steps
    counter.write_bytes(b"")
    made, killed = 0, 0
    while killed < kills and made < steps and not over():
        with (place / "log").open("w") as log:
            command = [sys.executable, "-m", "tests.system.long_model", "--child", database_url, redis_url, str(place)]
            child = subprocess.Popen([*command, "--seed", str(dice.getrandbits(32))], stdout=log, stderr=log)
        try:
            wait_until(lambda: child.poll() is not None or counter.stat().st_size > made, "the first step")  # noqa: B023
            ended = _ends_by_itself(child, dice.uniform(0, longest))
        finally:
            child.kill()
            child.wait()
        assert not ended, f"seed {seed}, after {killed} kills: {(place / 'log').read_text()[-6000:]}"
        made, killed = counter.stat().st_size, killed + 1
        all_sound(core)
        counters.fold(core.runtime)
        all_sound(core)
        core.sql("DELETE FROM api_keys")  # where a key was just dead
        _a_day_later(core)
        print(f"{place.name}: {made} steps, {killed} kills", flush=True)
    core.engine.dispose()
    return Report(made, killed)


def _ends_by_itself(child: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _a_day_later(core: Core) -> None:
    """Let a day pass: finished jobs are purged, others end by their clocks."""
    core.sql("DELETE FROM remote_jobs WHERE completed_at IS NOT NULL")
    for row in core.sql("SELECT id FROM remote_jobs"):
        core.age(row.id, 86400)


def child(database_url: str, redis_url: str, place: Path, seed: int) -> None:
    """Make steps until killed."""
    core = core_at(database_url, redis_url, place)
    written = os.open(place / "steps", os.O_WRONLY | os.O_APPEND)
    drive(core, ENDLESS, seed_number=seed, at_each=lambda: os.write(written, b"."))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--child", nargs=3, metavar=("DATABASE", "REDIS", "PLACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    if given.child:
        database_url, redis_url, place = given.child
        child(database_url, redis_url, Path(place), seed)
        return
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    reports = run_at_once(os.cpu_count() or 1, seed, given.steps)
    steps, kills = (sum(numbers) for numbers in zip(*reports, strict=True))
    print(f"{steps} steps and {kills} kills in {time.monotonic() - began:.0f} s: every job was sound.")


def run_at_once(lanes: int, seed: int, steps: int) -> list[Report]:
    """So many steps, shared by so many lanes, each with a database of its own; one that fails ends all."""
    with (
        tempfile.TemporaryDirectory() as place,
        embedded.start(Path(place) / "data", durable=False) as servers,
        ExitStack() as made,
    ):
        give_rights(servers)
        databases = [made.enter_context(own_database(servers.database_url)) for _ in range(lanes)]
        for database_url in databases:
            migrations.upgrade(database_url)
        failed: list[int] = []

        def run(lane: int) -> Report:
            redis_url = servers.redis_url.rpartition("/")[0] + f"/{lane}"
            how = {"seed": seed + lane, "steps": steps // lanes}
            try:
                (files := Path(place) / f"lane-{lane}").mkdir()
                return run_with_kills(databases[lane], redis_url, files, **how, over=lambda: bool(failed))
            except BaseException:
                failed.append(lane)
                raise

        with ThreadPoolExecutor(lanes) as pool:
            return list(pool.map(run, range(lanes)))


if __name__ == "__main__":
    main()
