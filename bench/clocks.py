"""How late each clock is noticed, at most: `python -m bench.clocks`. The bound is its sweep's period plus 2 s.

A private bridge with short clocks and the usual beat; twenty jobs for each clock, claimed at spread moments. Read from
PostgreSQL's own timestamps.
"""

import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from bridge.cli.family import ending_signals
from bridge.cli.stack import Stack
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from tests.client import Client, ok
from tests.waiting import wait_until

ACK_SECONDS, LEASE_SECONDS, EACH = 3, 10, 20
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


def main() -> int:
    """Prints a table; 1 when a bound was missed."""
    place = Path(tempfile.mkdtemp(prefix="jobbridge-clocks-"))
    changes = {"BRIDGE_DATA_DIR": str(place), "BRIDGE_PORT": str(free_port()), "BRIDGE_ACK_SECONDS": str(ACK_SECONDS)}
    stack = Stack(changes, throw_away=True, fsync=False)
    try:
        stack.migrate()
        key = stack.make_key("clocks", ["admin"])
        stack.start_processes()
        with ending_signals() as signals:
            stack.await_api(signals)
        client = Client(stack.url, key, stack.settings.source_roots[0])
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
        engine.dispose()
        return int(missed > 0)
    finally:
        stack.stop()


if __name__ == "__main__":
    sys.exit(main())
