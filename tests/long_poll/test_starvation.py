"""No number of idle queues or polls keeps a job from the poll that waits for it, with Redis and without."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import Client, ok
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


@pytest.fixture(scope="module")
def with_redis(start_bridge):
    return start_bridge(celery=False, beat=False, api_processes="1", log_level="warning")


@pytest.fixture(scope="module")
def without_redis(start_bridge):
    """On a Redis that does not answer, as after its end."""
    return start_bridge(
        celery=False, beat=False, api_processes="1", log_level="warning", redis_url="redis://127.0.0.1:1/0",
        broker_url="redis://127.0.0.1:1/0",
    )  # fmt: skip


@pytest.fixture(params=["with_redis", "without_redis"])
def alone(request):
    """Return a client of a bridge of one process, with Redis and without."""
    return request.getfixturevalue(request.param).client()


def waits(client: Client, content_types: str, count: int = 3) -> list[float]:
    """How long a job that is waited for takes to be claimed, so many times."""
    mine, took = Client(client.url, client.key, client.files), []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(count):
            polled = pool.submit(lambda: (mine.claim(content_types, "busy", wait=30), time.monotonic()))
            wait_until(lambda: ok(client.get("/readyz")), "the bridge to answer")
            created = time.monotonic()
            client.create(content_types.partition(",")[0])
            job, claimed = polled.result(60)
            ok(mine.result(job))
            took.append(claimed - created)
    return took


def test_a_job_is_claimed_beside_any_number_of_idle_queues_and_polls(alone):
    with parking(alone, IDLE):
        assert max(waits(alone, "busy")) < PATIENCE


def test_every_one_of_many_queues_that_fill_at_once_is_served(alone):
    types = [f"full-{n}" for n in range(100)]
    with parking(alone, types) as sockets:
        ok(alone.post("batch", {"jobs": [alone.fields(one) for one in types]}))
        started = time.monotonic()
        for each in sockets:
            each.settimeout(PATIENCE)
            with each.makefile("rb") as answer:
                assert any(b'"job_id"' in line for line in answer_lines(answer))
        assert time.monotonic() - started < PATIENCE


def answer_lines(answer) -> list[bytes]:
    """Return the head of an HTTP answer, line by line, and its body."""
    lines = list(iter(answer.readline, b"\r\n"))
    length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length"))
    return [*lines, answer.read(length)]


def test_jobs_withheld_from_one_worker_keep_nothing_from_the_queues_of_others(request, alone):
    """They stand at the heads of queues for which it waits, and fill what is looked at in one statement."""
    types = [f"withheld-{n}" for n in range(20)]
    ok(alone.post("batch", {"jobs": [alone.fields(one) for one in types for _ in range(10)]}))
    request.getfixturevalue(request.node.callspec.params["alone"]).sql(
        "UPDATE remote_jobs SET attempt = 1, worker_id = 'idle-0', lease_token = 'x', attempt_end = 'released',"
        " key_id = (SELECT id FROM api_keys k WHERE k.tenant = remote_jobs.tenant),"
        " attempt_ended_at = now() + interval '1 minute' WHERE content_type LIKE 'withheld-%'"
    )
    with parking(alone, [",".join(types)]):
        assert max(waits(alone, "busy")) < PATIENCE


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
