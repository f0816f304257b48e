"""A bridge whose PostgreSQL, Redis and broker lie behind networks that lose answers, cut, swallow and delay."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import pytest
import redis
import requests

from bridge import names
from bridge.db import make_engine
from bridge.settings import load_settings
from tests.support.broker import handed_over
from tests.support.client import Client, ok
from tests.support.fault_proxy import FaultProxy
from tests.support.parking import parked
from tests.support.running import Running
from tests.support.sound import all_sound
from tests.support.waiting import LATEST, wait_until


class Networks(NamedTuple):
    """What lies between the bridge's processes and their servers."""

    postgresql: FaultProxy
    redis: FaultProxy
    broker: FaultProxy


@pytest.fixture(scope="module")
def behind(start_bridge, servers, new_database) -> Iterator[tuple[Running, Networks]]:
    """Yield the bridge, which the test itself asks past the faults, and the networks."""
    database, redis_url = new_database(), servers.redis_url.rpartition("/")[0]
    with ExitStack() as stack:
        net = Networks(*(stack.enter_context(FaultProxy.before(url)) for url in (database, redis_url, redis_url)))
        bridge = start_bridge(
            database_url=net.postgresql.url(database),
            redis_url=net.redis.url(f"{redis_url}/900"),
            broker_url=net.broker.url(f"{redis_url}/901"),
            api_processes="1",
            continuation_task="pipeline.receive",
            continuation_queue="nobody",
        )
        bridge.engine.dispose()
        bridge.engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": database}))
        bridge.celery.send_task(names.RECONCILE, queue=names.QUEUE, ignore_result=True)  # else after 15 s
        yield bridge, net
        bridge.stop()  # before its networks


@pytest.fixture
def bridge(behind) -> Running:
    return behind[0]


@pytest.fixture
def net(behind, bridge, client) -> Iterator[Networks]:
    """Yield the networks in front of a whole bridge; after the test they are healed and its jobs are checked."""

    def whole() -> bool:
        bridge.stack.keep_up()  # Celery's worker may end by itself when its broker goes (docs/operations.md)
        return client.get("/readyz").json() == {"status": "ok", "redis": "ok"}

    wait_until(whole, "the bridge to be whole")
    yield behind[1]
    for proxy in behind[1]:
        proxy.heal()
    wait_until(whole, "the bridge to be whole again")
    all_sound(bridge, client.tenant)


def repeated(request: Callable[[], requests.Response]) -> tuple[dict[str, Any], list[int]]:
    """Return the answer of a client that repeats unanswered calls, and the refusals that it got before."""
    refusals: list[int] = []

    def answered() -> requests.Response | None:
        answer = request()
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            refusals.append(answer.status_code)
            return None
        return answer

    return ok(wait_until(answered, "the request to be answered")), refusals


# What precedes the request, the request, what its transaction holds and no other's, and what is then there: jobs,
# attempts begun, outcomes, lines of what was asked. What is one statement commits itself.
ONCE = {"Idempotency-Key": "once"}
WRITES: dict[str, tuple[Callable[[Client], Any], Callable[[Client, Any], requests.Response], bytes, Any]] = {
    "create": (Client.fields, lambda client, body: client.post("", body, headers=ONCE),
               b"EXECUTE create_under_key", (1, 0, 0, 0)),
    "batch": (lambda client: {"jobs": [client.fields() for _ in range(3)]},
              lambda client, body: client.post("batch", body, headers=ONCE),
              b"INSERT INTO job_batches", (3, 0, 0, 0)),
    "claim": (Client.create, lambda client, _: client.poll(claim_id="once", lease=60),
              b"EXECUTE claim_jobs", (1, 1, 0, 0)),
    "heartbeat": (Client.held, lambda client, job: client.heartbeat(job, progress=0.5),
                  b"acknowledged_at = coalesce", (1, 1, 0, 0)),
    "result": (Client.held, Client.result, b"EXECUTE complete_jobs", (1, 1, 1, 0)),
    "release": (Client.held,
                lambda client, job: client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}),
                b"Given back by its worker.", (1, 1, 0, 0)),
    "cancel": (Client.held, lambda client, job: client.post(f"{job['job_id']}/cancel"),
               b"INSERT INTO job_requests", (1, 1, 1, 1)),
}  # fmt: skip
ALONE = ("create", "claim", "heartbeat", "result")


@pytest.mark.parametrize("seen", [True, False], ids=["answer lost", "never seen"])
@pytest.mark.parametrize("write", WRITES)
def test_a_commit_that_is_cut_is_repeated_and_counts_once(bridge, client, net, write, seen):
    prepare, ask, statement, expected = WRITES[write]
    request = partial(ask, client, prepare(client))
    commit, before_it = (statement, b"") if write in ALONE else (b"COMMIT", statement)
    fault = net.postgresql.cut_on(commit, "up", before=not seen, following=before_it)
    answer, refusals = repeated(request)
    assert fault.count == 1
    assert refusals == [503]
    there = bridge.sql(
        "SELECT count(*), coalesce(sum(attempt), 0), coalesce(sum(outcome_count), 0),"
        " (SELECT count(*) FROM job_requests r JOIN remote_jobs j ON j.id = r.job_id WHERE j.tenant = :tenant)"
        " FROM remote_jobs WHERE tenant = :tenant",
        tenant=client.tenant,
    )
    assert tuple(there[0]) == expected
    if write == "claim":
        assert client.result(answer["jobs"][0]).status_code == 200  # the token is the one that counts
    elif write in ("create", "batch"):
        assert ok(request()) == answer


def test_a_parked_poll_whose_claim_was_committed_without_an_answer_is_given_the_job(bridge, client, net):
    """It is found under the poll's claim_id, at the latest when the poll ends."""
    fault = net.postgresql.cut_on(b"EXECUTE claim_jobs", "up", before=False)
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(client.poll, wait=15, lease=60, claim_id="parked")
        wait_until(lambda: parked(client) == 1, "the poll to be parked")
        job_id = client.create()
    assert fault.count == 1
    assert [job["job_id"] for job in ok(poll.result())["jobs"]] == [job_id]
    assert client.job(job_id)["attempt"] == 1


@pytest.mark.slow
def test_slow_networks_only_cost_time(bridge, client, net):
    for proxy in net:
        proxy.latency(0.03)
    ids = {client.create() for _ in range(3)}
    jobs = [client.claim(wait=30) for _ in ids]
    assert {job["job_id"] for job in jobs} == ids
    for job in jobs:
        ok(client.heartbeat(job, progress=0.5))
        ok(client.result(job))
    wait_until(lambda: all(handed_over(bridge, job_id) for job_id in ids), "the outcomes to be handed over")


@pytest.mark.parametrize("caught", [True, False], ids=["caught by BLMOVE", "taken by a script"])
def test_an_id_whose_way_from_redis_was_cut_is_claimed_all_the_same_and_settled(bridge, client, net, caught):
    fault = net.redis.cut_on(b"$36\r\n", "down")  # an answer that holds a job's ID

    def life() -> bool:
        """Of one job; the first ones may come from PostgreSQL, until the fault of another test is forgotten."""
        with ThreadPoolExecutor(1) as pool:
            if not caught:
                job_id = client.create()
            polled = pool.submit(client.claim, wait=30)
            if caught:
                wait_until(lambda: parked(client) == 1, "the poll to be parked")
                job_id = client.create()
            job = polled.result()
        assert (job["job_id"], job["attempt"]) == (job_id, 1)
        ok(client.result(job))
        return fault.happened.is_set()

    wait_until(life, "an ID to be cut")

    def settled() -> bool:
        bridge.celery.send_task(names.RECONCILE, queue=names.QUEUE, ignore_result=True)
        with redis.Redis.from_url(bridge.settings.require("redis_url")) as mirror:
            return not list(mirror.scan_iter(f"*{{{client.tenant}:*"))

    wait_until(settled, "the ID to be forgotten")


def enqueued(bridge: Running, client: Client) -> Any:
    """Send a create over Celery; what gets its answer."""
    fields = {**client.fields(), "tenant": client.tenant}
    return bridge.celery.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE)


def test_celery_whose_brpop_is_cut_takes_what_comes_afterwards(bridge, client, net):
    fault = net.broker.cut_on(b"BRPOP", times=3)
    wait_until(lambda: fault.count == 3, "Celery to ask three times")
    sent = enqueued(bridge, client)
    wait_until(lambda: bridge.stack.keep_up() or client.get("").json()["jobs"], "the job")
    assert sent.get(timeout=LATEST)["status"] == "pending"


def test_celery_whose_acknowledgements_are_cut_goes_on_taking_messages(bridge, client, net):
    celery = next(child for child in bridge.stack.family.children if child.name == "celery")
    before = celery.log.read_text().count("Couldn't ack")
    fault = net.broker.cut_on(re.compile(rb"ZREM.*bridge\.unacked_index", re.DOTALL), times=24)
    wait_until(lambda: fault.count == 24, "Celery to acknowledge in vain")
    assert celery.log.read_text().count("Couldn't ack") > before + 2, "more than it has places"
    assert enqueued(bridge, client).get(timeout=LATEST)["status"] == "pending"


@pytest.mark.slow
def test_an_outcome_whose_nudge_was_lost_on_its_way_from_the_broker_is_handed_over(bridge, client, net):
    fault = net.broker.cut_on(b"BRPOP", "up", before=False, answer=names.CONTINUE.encode())
    job = client.held()
    ok(client.result(job))
    found = wait_until(lambda: bridge.stack.keep_up() or handed_over(bridge, job["job_id"]), "the outcome")
    assert fault.happened.wait(LATEST)  # unless beat was before it, and its own message came first
    assert {message.id for message in found} == {f"continue-{job['job_id']}-1"}


@pytest.mark.slow
def test_a_postgresql_that_swallows_everything_is_unavailable_within_half_a_minute(bridge, client, net):
    """As one that is frozen, or a pooler before it: the connection stands and nothing comes."""
    job = client.held()
    net.postgresql.black_hole()
    with ThreadPoolExecutor(20) as pool:  # more than there are connections
        asked = [pool.submit(client.heartbeat, job, timeout=45) for _ in range(20)]
        assert ok(client.get("/healthz")) == {"status": "ok"}
        assert {request.result().status_code for request in asked} == {503}
    net.postgresql.heal()
    assert repeated(lambda: client.result(job))[0]["status"] == "completed"


def test_a_redis_that_swallows_everything_costs_no_job_and_no_refusal(bridge, client, net):
    first = client.create()
    net.redis.black_hole()
    second = client.create()
    jobs = [client.claim(wait=30), client.claim(wait=30)]
    assert {job["job_id"] for job in jobs} == {first, second}
    assert {client.result(job).status_code for job in jobs} == {200}
    net.redis.heal()
    third = client.create()
    assert client.claim(wait=30)["job_id"] == third
