"""No number of idle queues or polls, nor of slow requests, keeps a job from the poll that waits for it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import pytest

from tests.support.client import Client, ok
from tests.support.cut_off import terminate_backends
from tests.support.parking import parking
from tests.support.waiting import wait_until

# A poll that waits is promised a second and a half; a machine on which other tests run is given more. Who starves
# waits for minutes.
PATIENCE = 20.0

IDLE = [
    *(f"few-{n % 40}" for n in range(120)),  # 40 types, 3 polls each
    *["one"] * 200,  # one type
    *(f"many-{n % 200}" for n in range(400)),  # 200 types, 2 polls each: more than have listeners
    *(",".join(f"wide-{n * 20 + k}" for k in range(20)) for n in range(20)),  # 20 types a poll
]
SLEEPERS = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
NOWHERE = dict.fromkeys(("redis_url", "broker_url"), "redis://127.0.0.1:1/0")


@pytest.fixture(scope="module", params=[{}, NOWHERE], ids=["with_redis", "without_redis"])
def bridge(request, start_bridge):
    """Return a bridge of one process, also on a Redis that does not answer, as after its end."""
    return start_bridge(celery=False, beat=False, api_processes="1", log_level="warning", **request.param)


@pytest.fixture
def alone(bridge):
    return bridge.client()


def waits(client: Client) -> list[float]:
    """How long a job that is waited for takes to be claimed, three times."""
    mine, took = Client(client.url, client.key, client.files), []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            polled = pool.submit(lambda: (mine.claim("busy", "busy", wait=30), time.monotonic()))
            wait_until(lambda: ok(client.get("/readyz")), "the bridge to answer")
            created = time.monotonic()
            client.create("busy")
            job, claimed = polled.result(60)
            ok(mine.result(job))
            took.append(claimed - created)
    return took


def test_a_job_is_claimed_beside_any_number_of_idle_queues_and_polls(alone):
    with parking(alone, IDLE):
        assert max(waits(alone)) < PATIENCE


def test_every_one_of_many_queues_that_fill_at_once_is_served(alone):
    types = [f"full-{n}" for n in range(100)]
    with parking(alone, types) as sockets:
        ok(alone.post("batch", {"jobs": [alone.fields(one) for one in types]}))
        started = time.monotonic()
        for each in sockets:
            each.settimeout(PATIENCE)
            with HTTPResponse(each) as answer:
                answer.begin()
                assert json.load(answer)["jobs"]
        assert time.monotonic() - started < PATIENCE


def test_jobs_withheld_from_one_worker_keep_nothing_from_the_queues_of_others(bridge, alone):
    """They stand at the heads of queues for which it waits, and fill what is looked at in one statement."""
    types = [f"withheld-{n}" for n in range(20)]
    ok(alone.post("batch", {"jobs": [alone.fields(one) for one in types for _ in range(10)]}))
    bridge.sql(
        "UPDATE remote_jobs SET attempt = 1, worker_id = 'idle-0', lease_token = 'x', attempt_end = 'released',"
        " key_id = (SELECT id FROM api_keys k WHERE k.tenant = remote_jobs.tenant),"
        " attempt_ended_at = now() + interval '1 minute' WHERE content_type LIKE 'withheld-%'"
    )
    with parking(alone, [",".join(types)]):
        assert max(waits(alone)) < PATIENCE


def test_a_released_job_is_given_to_polls_that_do_not_wait(alone):
    job = alone.held(worker_id="releaser")
    ok(alone.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))
    for _ in range(10):
        assert ok(alone.poll(worker_id="releaser", wait=0))["jobs"] == [], "withheld from who has just released it"
    assert alone.claim(worker_id="other", wait=0)["job_id"] == job["job_id"]


def test_a_job_behind_withheld_ones_is_given_to_who_released_them(alone):
    for _ in range(3):
        alone.create()
    for job in ok(alone.poll(worker_id="releaser", max_jobs=3, lease=60))["jobs"]:
        ok(alone.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))
    last = alone.create()
    assert alone.claim(worker_id="releaser")["job_id"] == last


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
