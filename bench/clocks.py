"""How late each clock is noticed, at most: `python -m bench.clocks`. The bound is its sweep's period plus 2 s.

A private bridge with short clocks; twenty jobs for each clock, claimed at spread moments: as usual, without beat, and
behind a flood of creates over Celery. Read from PostgreSQL's own timestamps.
"""

import sys
import tempfile
import time
from pathlib import Path

from celery import Celery
from sqlalchemy import text

from bridge import names
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import ending_signals
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from bridge.jobs.expire_without_beat import GRACE_SECONDS
from tests.support.client import Client, ok
from tests.support.waiting import wait_until

ACK_SECONDS, LEASE_SECONDS, EACH, FLOOD = 3, 10, 20, 20_000
LATE = text("""
SELECT 'acknowledgement' AS clock, 5 AS period, count(*) AS n,
  max(extract(epoch FROM ended_at - claimed_at) - :ack) AS late
FROM job_attempts WHERE how = 'unacknowledged'
UNION ALL SELECT 'lease', 5, count(*), max(extract(epoch FROM ended_at - acknowledged_at) - :lease)
FROM job_attempts WHERE how = 'lease_expired'
UNION ALL SELECT 'deadline', 5, count(*), max(extract(epoch FROM ended_at - claimed_at) - 1)
FROM job_attempts WHERE how = 'timeout'
UNION ALL SELECT 'queue', 5, count(*), max(extract(epoch FROM completed_at - timeout_at))
FROM remote_jobs WHERE status = 'timeout' AND attempt = 0
UNION ALL SELECT 'available_at', 1, count(*), max(extract(epoch FROM started_at - available_at))
FROM remote_jobs WHERE content_type = 'later'
""")


def measure(name: str, *, beat: bool = True, flood: int = 0) -> int:
    """Print a table; return how many bounds were missed. `flood`: creates over Celery that come first."""
    print(f"{name}:")
    place = Path(tempfile.mkdtemp(prefix="jobbridge-clocks-"))
    changes = {"BRIDGE_DATA_DIR": str(place), "BRIDGE_PORT": str(free_port()), "BRIDGE_ACK_SECONDS": str(ACK_SECONDS)}
    stack = Stack(changes, throw_away=True, fsync=False)
    try:
        stack.migrate()
        key = stack.make_key("clocks", ["admin"])
        stack.start_processes(beat=beat)
        started = time.monotonic()
        with ending_signals() as signals:
            stack.await_api(signals)
        client = Client(stack.url, key, stack.settings.source_roots[0])
        time.sleep(max(0, started + GRACE_SECONDS + 5 - time.monotonic()))
        if flood:
            _flood(stack.settings.require("broker_url"), client, flood)
        for n in range(EACH):
            for content_type, timeout in (("ack", 60), ("lease", 60), ("deadline", 1)):
                client.create(content_type, timeout_seconds=timeout, max_retries=0)
                job = client.claim(content_type, f"{content_type}{n}", lease=LEASE_SECONDS)
                if content_type != "ack":
                    ok(client.heartbeat(job))
            client.create("queue", queue_timeout_seconds=1)
            time.sleep(0.4)
        soon = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 3))
        for _ in range(EACH):
            client.create("later", available_at=soon)
        for n in range(EACH):  # parked before they are due
            ok(client.result(client.claim("later", f"later{n}")))
        engine = make_engine(stack.settings)
        given = {"ack": ACK_SECONDS, "lease": LEASE_SECONDS}

        def rows() -> list[tuple[str, int, int, float]]:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(LATE, given)]

        wait_until(lambda: all(n >= EACH for _, _, n, _ in rows()), "every clock to run out", 60)
        missed = 0
        for clock, period, n, late in rows():
            missed += late > period + 2
            print(f"{clock:>16}  {n:>3} jobs  at most {late:5.2f} s late; the bound is {period + 2} s")
        if flood:
            with engine.connect() as connection:
                created = connection.scalar(text("SELECT count(*) FROM remote_jobs WHERE content_type = 'flood'"))
            print(f"  by then {created} of the {flood} creates were made")
        engine.dispose()
        return missed
    finally:
        stack.stop()


def _flood(broker: str, client: Client, count: int) -> None:
    app = Celery("a pipeline", broker=broker, set_as_current=False)
    with app.producer_or_acquire() as producer:
        for _ in range(count):
            fields = client.fields("flood")
            app.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE, ignore_result=True, producer=producer)


def main() -> int:
    """Measure each case; return 1 if a bound was missed."""
    missed = measure("as usual")
    missed += measure("without beat", beat=False)
    missed += measure(f"behind a flood of {FLOOD} creates over Celery", flood=FLOOD)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
