"""How long each recovery takes, at most: `python -m bench.recovery`. The bounds are those of docs/guarantees.md.

A private bridge; each fault several times, without a backlog. One line per recovery; the exit status is 1 if a bound
was missed.
"""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import text

from bridge import embedded
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import ending_signals
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from bridge.jobs.expire_without_beat import GRACE_SECONDS
from tests.support.client import Client, ok
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until

ACK_SECONDS, LEASE_SECONDS, TIMES = 3, 10, 20
SWEEP_BOUND, REDIS_BOUND, OUTCOME_BOUND = 7.0, 2.0, 20.0


class Bench:
    """A bridge whose nudges can be lost on their way, and its measurements."""

    def __init__(self, place: Path) -> None:
        self.servers = embedded.start(place / "servers", durable=False)
        self.broker = FaultProxy.before(self.servers.redis_url)
        self.stack = Stack(
            {
                "BRIDGE_DATABASE_URL": self.servers.database_url,
                "BRIDGE_REDIS_URL": self.servers.redis_url,
                "BRIDGE_BROKER_URL": self.broker.url(self.servers.redis_url),
                "BRIDGE_DATA_DIR": str(place / "bridge"),
                "BRIDGE_PORT": str(free_port()),
                "BRIDGE_API_PROCESSES": "2",
                "BRIDGE_ACK_SECONDS": str(ACK_SECONDS),
                "BRIDGE_RETRY_BACKOFF": "base=3600,max=3600",
                "BRIDGE_CONTINUATION_TASK": "pipeline.receive",
                "BRIDGE_CONTINUATION_QUEUE": "nobody",
            },
            throw_away=True,
        )
        self.stack.migrate()
        key = self.stack.make_key("recovery", ["admin"])
        self.stack.start_processes()
        with ending_signals() as signals:
            self.stack.await_api(signals)
        self.client = Client(self.stack.url, key, self.stack.settings.source_roots[0])
        self.engine = make_engine(self.stack.settings)
        self.missed = 0

    def close(self) -> None:
        self.engine.dispose()
        self.stack.stop()
        self.broker.close()
        self.servers.stop()

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(text(statement), parameters))

    def whole(self) -> None:
        def so() -> bool:
            self.stack.keep_up()
            return bool(self.client.get("/readyz").json() == {"status": "ok", "redis": "ok"})

        wait_until(so, "the bridge to be whole", 120)

    def tell(self, what: str, took: list[float], bound: float) -> None:
        self.missed += max(took) > bound
        print(f"{what:<58} {len(took):>3} times, at most {max(took):6.2f} s; the bound is {bound:.0f} s", flush=True)

    def clocks(self, when: str) -> None:
        """Measure workers that fall silent, with and without an earlier sign of life."""
        kinds = [f"{kind}-{time.monotonic_ns()}" for kind in ("ack", "lease")]
        for n in range(TIMES):
            for kind in kinds:
                self.client.create(kind)
                job = self.client.claim(kind, f"{kind}{n}", lease=LEASE_SECONDS)
                if kind == kinds[1]:
                    ok(self.client.heartbeat(job))
            time.sleep(0.37)  # so that they end at any moment of a sweep's period
        ended = (
            "SELECT extract(epoch FROM a.ended_at - coalesce(a.acknowledged_at, a.claimed_at)) AS after"
            " FROM job_attempts a JOIN remote_jobs j ON j.id = a.job_id WHERE j.content_type = :kind"
        )
        wait_until(lambda: all(len(self.sql(ended, kind=kind)) == TIMES for kind in kinds), "the clocks", 120)
        for kind, clock, name in zip(
            kinds, (ACK_SECONDS, LEASE_SECONDS), ("never acknowledged", "silent"), strict=True
        ):
            late = [float(row.after) - clock for row in self.sql(ended, kind=kind)]
            self.tell(f"{name}, {when}: pending again after its clock", late, SWEEP_BOUND)

    def first_claim(self, what: str, fault: Callable[[], object], heal: Callable[[], object], times: int = 5) -> None:
        """Measure from the fault to the first claim of a job created after it, by a poll that was parked before."""
        took = []
        for n in range(times):
            self.whole()
            kind = f"first-{time.monotonic_ns()}"
            with ThreadPoolExecutor(1) as pool:
                poll = pool.submit(self.client.claim, kind, f"w{n}", wait=30)
                time.sleep(1 + n * 0.21)
                began = time.monotonic()
                fault()
                self.client.create(kind)
                job = poll.result()
                took.append(time.monotonic() - began)
            ok(self.client.result(job))
            heal()
        self.tell(f"Redis {what}: the first claim", took, REDIS_BOUND)

    def outcomes(self) -> None:
        """Measure results whose nudge is lost, which the sweep finds."""
        self.whole()
        lost = self.broker.cut_on(re.compile(rb"LPUSH\r\n\$15\r\nbridge\.outcomes\r\n"), times=10**6)
        job_ids = []
        for n in range(TIMES):
            job_ids.append(self.client.create("outcome"))
            ok(self.client.result(self.client.claim("outcome", f"w{n}", wait=30)))
            time.sleep(0.53)
        late = (
            "SELECT extract(epoch FROM sent_at - created_at) FROM continuations WHERE job_id = ANY(CAST(:i AS uuid[]))"
        )
        wait_until(lambda: all(row[0] for row in self.sql(late, i=job_ids)), "the outcomes", 120)
        assert lost.count > 0, "no nudge was lost"
        self.broker.heal()
        self.tell("a nudge that is lost: the outcome sent", [float(row[0]) for row in self.sql(late, i=job_ids)],
                  OUTCOME_BOUND)  # fmt: skip


def main() -> int:
    """Measure each recovery; return 1 if a bound was missed."""
    bench = Bench(Path(tempfile.mkdtemp(prefix="jobbridge-recovery-")))
    server = bench.servers.redis
    assert server is not None
    try:
        started = time.monotonic()
        with redis.Redis.from_url(bench.servers.redis_url) as own:
            bench.first_claim("killed", server.kill, server.start)
            bench.first_claim("flushed", own.flushall, lambda: None)
            refuse = lambda: own.config_set("maxmemory", "1")  # noqa: E731
            bench.first_claim("refusing writes (OOM)", refuse, lambda: own.config_set("maxmemory", "0"))
        bench.outcomes()
        time.sleep(max(0.0, started + GRACE_SECONDS + 5 - time.monotonic()))
        bench.clocks("as usual")
        server.kill()
        bench.clocks("Redis and broker away")
        server.start()
        bench.whole()
    finally:
        bench.close()
    return int(bench.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
