"""What a process lives by does not wait behind slow requests."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import ok
from tests.support.cut_off import terminate_backends
from tests.support.waiting import wait_until

SLEEPERS = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.mark.slow
def test_a_poll_is_handed_a_job_while_slow_requests_hold_every_connection_of_theirs(own_bridge):
    bridge = own_bridge(api_processes="1", beat=False, celery=False)
    client = bridge.client()
    cancelled = client.create("video")
    ok(client.post(f"{cancelled}/cancel"))
    # Whoever shows it holds its connection for 14 s.
    bridge.sql("ALTER TABLE job_requests RENAME TO real_requests")
    bridge.sql("CREATE VIEW job_requests AS SELECT * FROM real_requests WHERE pg_sleep(14) IS NOT NULL")
    client.create(available_at="2999-01-01T00:00:00+00:00")
    with ThreadPoolExecutor(41) as pool:
        waiting = pool.submit(client.poll, wait=60, lease=60)
        for _ in range(40):
            pool.submit(client.get, cancelled)
        wait_until(lambda: bridge.sql(SLEEPERS)[0].n == 16, "the slow requests to hold all 16")
        try:
            assert ok(client.poll(worker_id="w2"))["jobs"] == [], "a new poll is looked at"
            bridge.sql(
                "UPDATE remote_jobs SET available_at = now(), queued_at = now(),"
                " timeout_at = now() + interval '1 hour' WHERE content_type = 'audio'"
            )
            assert ok(waiting.result(60))["jobs"], "and the one that was parked gets its job"
        finally:
            terminate_backends(bridge.settings.require("database_url"))
