"""Steady load with a fault every 10 s, after which everything comes back to where it was: `make soak MINUTES=…`.

The faults are those that leave the API's and Celery's processes alive, so that what they leak is still there at the
end. What is measured in a quiet while before is measured in a quiet while after; the history is checked as well.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from sqlalchemy import text

from tests.chaos.nemesis import LANES, Planned
from tests.chaos.run import Run
from tests.chaos.system import CONTENT_TYPES, System
from tests.support.waiting import wait_until

WARM_SECONDS = 60.0
EVERY_SECONDS = 10.0
QUIET_SECONDS = 240.0  # within which all comes back; vacuum of an hour's rows takes its time
MIB = 1024 * 1024
VACUUM_OFTEN = {"autovacuum_naptime": "5s", "autovacuum_vacuum_cost_delay": "0"}
GENTLE = {
    "postgres": set(LANES["postgres"][1]),
    "redis": set(LANES["redis"][1]),
    "network": set(LANES["network"][1]),
    "workers": set(LANES["workers"][1]),
    "background": {"slow pipeline", "two beats", "freeze Celery", "freeze beat", "freeze the pipeline"},
    "api": {"freeze an API process", "freeze an API process beyond the lease"},
}

#: What may be more than before: (share of what was there, plus so much). Whoever lives on keeps its pools and caches.
MORE: dict[str, tuple[float, float]] = {
    "MiB of an API process": (0.3, 30),
    "MiB of Celery's parent": (0.3, 30),
    "MiB of a Celery child": (0.3, 30),
    "descriptors of an API process": (0.0, 30),
    "descriptors of Celery's parent": (0.0, 15),
    "connections to PostgreSQL": (0.0, 20),
    # The two workers' polls may have waited in one API process before, in both after: a listener for each list.
    "connections to Redis": (0.0, 30 + 3 * len(CONTENT_TYPES)),
    "keys in Redis": (0.0, 40),
    "MiB in Redis": (0.5, 40),
    "dead rows": (0.0, 0.25),  # of each live row, in the table that has most
    "bytes of a job": (0.5, 2000),
    "MiB of job_moves": (0.0, 8),
}

TABLES = text("""
SELECT relname, n_live_tup AS live, n_dead_tup AS dead, pg_total_relation_size(relid) AS bytes
FROM pg_stat_user_tables
""")
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


def gentle(seed: str, seconds: float) -> list[Planned]:
    """Return a schedule, decided by the seed, of one fault every ten seconds."""
    rng = random.Random(f"{seed}-soak")
    planned = []
    for n in range(int(seconds / EVERY_SECONDS)):
        lane = rng.choice(sorted(GENTLE))
        kinds = {name: weight for name, (weight, _) in LANES[lane][1].items() if name in GENTLE[lane]}
        (name,) = rng.choices(list(kinds), list(kinds.values()))
        planned.append(Planned(n * EVERY_SECONDS, lane, name, f"{seed}-soak-{n}"))
    return planned


def sample(system: System) -> dict[str, float]:
    """Return what the run measures; of several processes the largest."""
    found: dict[str, float] = {}

    def most(name: str, value: float) -> None:
        found[name] = max(found.get(name, 0.0), value)

    with suppress(psutil.NoSuchProcess):
        for child in system.children("api"):
            most("MiB of an API process", child.memory_info().rss / MIB)
            most("descriptors of an API process", child.num_fds())
        parent = psutil.Process(system.process("celery").pid)
        most("MiB of Celery's parent", parent.memory_info().rss / MIB)
        most("descriptors of Celery's parent", parent.num_fds())
        for child in parent.children():
            most("MiB of a Celery child", child.memory_info().rss / MIB)
    with system.redis() as client:
        # Answers of the intake stay for an hour, and are as many as there were requests in it.
        answers = sum(1 for _ in client.scan_iter("celery-task-meta-*", count=1000))
        found["keys in Redis"] = client.dbsize() - answers
        found["connections to Redis"] = client.info("clients")["connected_clients"]
        found["MiB in Redis"] = client.info("memory")["used_memory"] / MIB
    found["connections to PostgreSQL"] = system.number(CONNECTIONS)
    with system.engine.connect() as connection:
        for table in connection.execute(TABLES):
            if table.dead > 1000:
                most("dead rows", table.dead / max(table.live, 1000))
            if table.relname == "job_moves":
                found["MiB of job_moves"] = table.bytes / MIB
            if table.relname == "remote_jobs":
                found["bytes of a job"] = table.bytes / max(table.live, 1)
    return {"dead rows": 0.0, **found}


def leaked(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Return what did not come back, as sentences."""
    lines = []
    for name, (share, plus) in MORE.items():
        limit = before[name] * (1 + share) + plus
        if after[name] > limit:
            lines.append(f"{name}: {before[name]:.1f} before, {after[name]:.1f} after, at most {limit:.1f} expected")
    return lines


def show(what: str, values: dict[str, float]) -> None:
    line = ", ".join(f"{name} {value:.1f}" for name, value in sorted(values.items()))
    print(f"{time.strftime('%X')}  {what}: {line}", flush=True)


def soak(run: Run, minutes: float) -> list[str]:
    """All that is wrong."""
    run.torment(WARM_SECONDS, [])
    run.drain()
    wait_until(lambda: not any(run.left().values()), "a quiet bridge before", 120)
    before = sample(run.system)
    show("before", before)
    seconds = minutes * 60
    run.torment(seconds, gentle(run.seed, seconds))
    run.settle()
    end = time.monotonic() + QUIET_SECONDS
    while (found := leaked(before, sample(run.system))) and time.monotonic() < end:
        run.look()
        time.sleep(2)
    show("after", sample(run.system))
    return [*found, *map(str, run.verdict())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", default=str(int.from_bytes(os.urandom(3))), help="the same seed, the same faults")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="jobbridge-soak-"))
    run = Run(place, options.seed, postgres_options=VACUUM_OFTEN)
    try:
        found = soak(run, options.minutes)
        print("\n".join(run.summary()))
    finally:
        run.stop()
        shutil.rmtree(place, ignore_errors=True)
    print("\n".join(found) if found else "Everything came back to where it was.")
    if found:
        print(f"Again: make soak MINUTES={options.minutes:g} SEED={options.seed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
