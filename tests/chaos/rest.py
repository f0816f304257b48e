"""Jobs that nobody takes, so that a mirror at rest has something in it, in Redis and in PostgreSQL."""

import random
import re
import time
from collections.abc import Callable

import requests

from tests.chaos import end_state
from tests.chaos.calls import Caller
from tests.chaos.end_state import EndState
from tests.chaos.history import Call, History
from tests.chaos.system import CONTENT_TYPES, TENANTS, System
from tests.support.waiting import wait_until

JOBS = 90
METRIC = re.compile(r'^bridge_jobs\{content_type="([^"]*)",status="([^"]*)"\} (\S+)$', re.MULTILINE)
MIRROR_SECONDS = 60.0


def at_rest(system: System, history: History, end: EndState, seed: str) -> None:
    """Create jobs with no worker about, empty Redis, read both when they agree (or do not in time), cancel all."""
    rng = random.Random(f"{seed}-rest")
    path = system.files / "rest"
    path.write_bytes(b"at rest")
    callers = {one: Caller(history, system.url, system.keys[one, "admin"], one, f"rest-{one}") for one in TENANTS}
    for n in range(JOBS):
        body = {"source_file_path": str(path), "content_type": rng.choice(CONTENT_TYPES), "ingestion_task_id": "rest",
                "priority": rng.choice(["low", "normal", "high"])}  # fmt: skip
        key, caller = f"rest-{n}", callers[TENANTS[n % len(TENANTS)]]
        _answered(lambda: caller.call("create", json=body, key=key, headers={"Idempotency-Key": key})[0])  # noqa: B023
    with system.redis() as client:
        client.flushall()

        def agreed() -> bool:
            end_state.read_mirror(system.engine, client, system.stack.settings.redis_prefix, end)
            return set(end.mirrored) == end.claimable and not any(end.claimed.values())

        began = time.monotonic()
        try:
            wait_until(agreed, "the mirror to agree with PostgreSQL", MIRROR_SECONDS)
            print(f"{time.monotonic() - began:.1f} s after FLUSHALL the mirror was whole", flush=True)
        except AssertionError as late:
            print(f"{time.strftime('%X')}  {late}", flush=True)
    headers = {"Authorization": f"Bearer {system.bootstrap}"}
    page = requests.get(f"{system.url}/metrics", headers=headers, timeout=20).text
    end.gauges.update({(kind, status): int(float(count)) for kind, status, count in METRIC.findall(page)})
    end_state.read_counts(system.engine, end)
    for (_, content_type, status), count in end.counted.items():
        if status in ("pending", "processing"):
            end.resting[content_type, status] += count
    for caller in callers.values():
        _answered(lambda: caller.call("cancel many", params={"status": "pending"})[0])  # noqa: B023


def _answered(ask: Callable[[], Call]) -> None:
    """Ask until it is answered: nothing is at fault any more, so soon."""
    wait_until(lambda: ask().ok, "a healed bridge to take a request", 30)
