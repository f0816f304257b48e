"""Parked polls on two API processes: who is woken, by what, and that no job is given twice."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

import pytest
import redis

from tests.support.client import Client, ok
from tests.support.parking import parked
from tests.support.racing import at_once
from tests.support.waiting import wait_until


def polls(client: Client, count: int):
    """Return the futures of the jobs of so many polls, each of a worker and a connection of its own, once they wait."""
    pool = ThreadPoolExecutor(count)
    ask = lambda n: ok(client.poll("audio", f"w{n}", wait=30, lease=60))["jobs"]  # noqa: E731
    futures = [pool.submit(ask, n) for n in range(count)]
    pool.shutdown(wait=False)
    wait_until(lambda: parked(client) >= count, f"{count} parked polls")
    return futures


def test_sixteen_pollers_on_two_processes_claim_five_hundred_jobs_once_each(client):
    made = ok(client.post("batch", {"jobs": [client.fields()] * 500}))["jobs"]
    ids = {job["job_id"] for job in made}
    claimed: list[str] = []

    def work(n: int) -> None:
        mine = Client(client.url, client.key, client.files)
        while jobs := ok(mine.poll(worker_id=f"w{n}", max_jobs=1 + n % 3, lease=60, wait=1))["jobs"]:
            claimed.extend([job["job_id"] for job in jobs])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == ids
    assert {client.job(job_id)["attempt"] for job_id in list(ids)[:50]} == {1}


def test_jobs_created_while_polls_are_parked_go_to_one_each(client):
    waiting = polls(client, 12)
    ids = {client.create() for _ in range(12)}
    got = [future.result(40) for future in waiting]
    assert [len(jobs) for jobs in got] == [1] * 12
    assert {jobs[0]["job_id"] for jobs in got} == ids


def test_an_id_that_stands_in_redis_twice_is_given_to_one_of_two_parked_polls(bridge, client):
    waiting = polls(client, 2)
    key = f"{bridge.settings.redis_prefix}:{{{client.tenant}:audio}}:pending:normal"
    job_id = client.create()
    done = next(as_completed(waiting))
    assert [job["job_id"] for job in done.result()] == [job_id]

    with redis.Redis.from_url(bridge.settings.require("redis_url")) as connection:
        connection.lpush(key, job_id, job_id, "no job ID")
    other = client.create()
    got = next(future for future in waiting if future is not done).result(40)
    assert [job["job_id"] for job in got] == [other]


def test_a_released_job_goes_to_another_parked_worker_and_not_to_its_own(client):
    job = client.held(worker_id="w0")
    waiting = polls(client, 2)  # w0, which is about to release, and w1
    ok(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))
    first = next(as_completed(waiting, 40))
    assert [again["job_id"] for again in first.result()] == [job["job_id"]]
    assert client.job(job["job_id"])["worker_id"] == "w1"
    client.create()
    assert all(future.result(40) for future in waiting)


def test_the_types_of_a_poll_take_turns(client):
    for content_type in ("audio", "video", "web"):
        for _ in range(4):
            client.create(content_type)
    got = [client.claim("audio,video,web", wait=0)["content_type"] for _ in range(12)]
    for start in range(0, 12, 6):  # on two processes each has its own turns
        assert set(got[start : start + 6]) == {"audio", "video", "web"}


def test_high_comes_before_normal_before_low_and_older_before_younger(client):
    low, first, high, second = (client.create(priority=one) for one in ("low", "normal", "high", "normal"))
    assert [client.claim(wait=0)["job_id"] for _ in range(4)] == [high, first, second, low]


@pytest.mark.slow
def test_a_poll_that_is_repeated_while_its_first_one_is_parked_gets_one_claim(client):
    """Whichever process each of them is parked in."""
    for n in range(6):
        both = [Client(client.url, client.key, client.files) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(each.poll, wait=2, lease=60, claim_id=f"c{n}") for each in both]
            client.create()
            jobs = [job for answer in answers for job in ok(answer.result(40))["jobs"]]
        assert len({job["lease_token"] for job in jobs}) == 1
        ok(client.heartbeat(jobs[0]))


@pytest.fixture(scope="module")
def one_process(start_bridge):
    return start_bridge(celery=False, beat=False, api_processes="1")


def connected(client: Client, count: int) -> list[Client]:
    """Return so many clients with the same key, whose connections stand."""
    made = [Client(client.url, client.key, client.files) for _ in range(count)]
    for one in made:
        one.get("/healthz")
    return made


def test_two_polls_of_one_claim_that_come_together_get_one_claim(one_process):
    client = one_process.client()
    for n in range(40):
        ok(client.post("batch", {"jobs": [client.fields()] * 2}))
        answers = at_once(*(partial(mine.poll, wait=0, lease=60, claim_id=f"c{n}") for mine in connected(client, 2)))
        jobs = [job for answer in answers for job in ok(answer)["jobs"]]
        assert len({job["lease_token"] for job in jobs}) == 1
        ok(client.post("cancel", params={"content_type": "audio"}))


def test_what_many_ask_for_at_once_is_more_than_a_batch_and_none_goes_away_empty(one_process):
    client = one_process.client()
    ok(client.post("batch", {"jobs": [client.fields() for _ in range(900)]}))
    eight = enumerate(connected(client, 8))
    answers = at_once(*(partial(mine.poll, worker_id=f"w{n}", max_jobs=100, lease=60) for n, mine in eight))
    got = [ok(answer)["jobs"] for answer in answers]
    assert all(got)
    ids = [job["job_id"] for jobs in got for job in jobs]
    assert len(ids) == len(set(ids))


def test_a_job_that_was_just_being_changed_is_handed_out_before_its_elders_are_overtaken(one_process):
    client = one_process.client()
    job_id = client.create()
    with one_process.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM remote_jobs WHERE id = '{job_id}' FOR UPDATE")
        assert ok(client.poll(wait=0))["jobs"] == []
    with redis.Redis.from_url(one_process.settings.require("redis_url"), decode_responses=True) as connection:
        key = f"{one_process.settings.redis_prefix}:{{{client.tenant}:audio}}:pending:normal"
        wait_until(lambda: connection.lrange(key, 0, -1) == [job_id], "the ID to be back at the head")
    assert client.claim(wait=0)["job_id"] == job_id


def test_what_is_missing_in_the_mirror_is_found_within_a_second_by_a_parked_poll(bridge, client):
    waiting = polls(client, 1)
    with redis.Redis.from_url(bridge.settings.require("redis_url")) as connection:
        assert ok(client.post("", client.fields("video")))
        key = f"{bridge.settings.redis_prefix}:{{{client.tenant}:video}}:pending:normal"
        assert connection.delete(key) == 1
    job = client.claim("video", wait=10)
    assert job["content_type"] == "video"
    client.create()
    assert waiting[0].result(40)


def test_every_acknowledged_create_completes_although_redis_is_emptied_and_stopped(own_bridge, own_servers):
    servers = own_servers(postgres=False)
    bridge = own_bridge(api_processes="2", redis_url=servers.redis_url, broker_url=servers.redis_url)
    client = bridge.client()
    created: set[str] = set()
    completed: set[str] = set()
    stop = threading.Event()

    def work(n: int) -> None:
        mine = Client(bridge.url, client.key, client.files)
        while not stop.is_set() or completed != created:
            for job in ok(mine.poll(worker_id=f"w{n}", wait=1, lease=60))["jobs"]:
                ok(mine.result(job))
                completed.add(job["job_id"])

    def create() -> None:
        for _ in range(20):
            created.add(client.create())

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, n) for n in range(4)]
        create()
        servers.redis.kill()
        create()
        wait_until(lambda: completed == created, "the jobs of the time without Redis")
        servers.redis.start()
        create()

        with redis.Redis.from_url(servers.redis_url) as connection:
            connection.flushall()
        create()
        stop.set()
        for worker in workers:
            worker.result(60)
    assert completed == created
    counts = bridge.sql("SELECT status, count(*) AS n, max(attempt) AS attempts FROM remote_jobs GROUP BY status")
    assert [(row.status, row.n, row.attempts) for row in counts] == [("completed", 80, 1)]
