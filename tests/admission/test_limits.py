"""Limits: what one key, tenant or address asks for too much is a 429 with Retry-After, and nobody else feels it."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from api.http.client_address import real_address
from bridge.admission.limits import MOST_READ
from tests.support.client import Client, ok, refused
from tests.support.waiting import wait_until

LIMITS = "requests=150,parked=3,in_hand=2,pending=5,content_types=2,failures=20"


@pytest.fixture(scope="module")
def limited(start_bridge):
    """Return a bridge whose limits a test can reach, behind a proxy on this machine."""
    return start_bridge(celery=False, beat=False, api_processes="2", limits=LIMITS, trusted_proxies="127.0.0.1")


@pytest.fixture
def client(limited):
    return limited.client()


def too_many(answer):
    """Whether the answer is a well-formed refusal of too much; it is a 200 otherwise."""
    if answer.status_code == 200:
        return False
    refused(answer, 429, "too_many")
    assert int(answer.headers["Retry-After"]) >= 1
    return True


@pytest.mark.slow
def test_requests_of_a_key_within_a_minute(limited, client):
    wait_until(lambda: any(too_many(client.get("")) for _ in range(40)), "a refusal", 60)
    ok(limited.client(client.tenant).get(""))


def test_polls_that_wait(limited, client):
    other = limited.client(client.tenant)
    with ThreadPoolExecutor(6) as pool:
        parked = [pool.submit(client.poll, "nothing", worker_id=f"w{n}", wait=10) for n in range(6)]
        wait_until(lambda: too_many(client.poll("nothing")), "a refusal")
        ok(other.poll("nothing"))
        for _ in range(5):
            other.create("nothing")
        assert all(answer.result(timeout=60).status_code in (200, 429) for answer in parked)


def test_jobs_in_hand(limited, client):
    for _ in range(3):
        client.create("held")
    held = ok(client.poll("held", max_jobs=100))["jobs"]
    assert len(held) == 2, "no more than there is room for"
    wait_until(lambda: too_many(client.poll("held")), "a refusal")
    assert len(ok(limited.client(client.tenant).poll("held"))["jobs"]) == 1
    ok(client.result(held[0]))
    wait_until(lambda: not too_many(client.poll("held")), "room after a result")


def test_a_repeated_claim_gets_its_jobs_though_the_key_holds_too_many(limited, client):
    for _ in range(3):
        client.create("held")
    first = ok(client.poll("held", max_jobs=100, lease=60, claim_id="c1"))
    assert len(first["jobs"]) == 2
    wait_until(lambda: too_many(client.poll("held", claim_id="c2")), "a refusal")
    for wait in (0, 30, None):
        assert ok(client.poll("held", lease=60, claim_id="c1", wait=wait)) == first
    ok(client.heartbeat(first["jobs"][0]))
    assert ok(client.poll("held", claim_id="c1"))["jobs"] == first["jobs"][1:]
    ok(client.heartbeat(first["jobs"][1]))
    refused(client.poll("held", claim_id="c1", wait=30), 429, "too_many")


def test_jobs_that_wait(limited, client):
    wait_until(lambda: too_many(client.post("", client.fields())), "a refusal")
    refused(client.post("batch", {"jobs": [client.fields()]}), 429, "too_many")
    limited.client().create()
    jobs = [client.claim() for _ in range(2)]
    for job in jobs:
        ok(client.result(job))
    wait_until(lambda: not too_many(client.post("", client.fields())), "room after results")


def test_a_replay_is_answered_whatever_limit_was_reached(client):
    body, batch = client.fields("first"), {"jobs": [client.fields("first")]}
    replays = [("", body, {"Idempotency-Key": "one"}), ("batch", batch, {"Idempotency-Key": "batch"})]
    answers = [ok(client.post(path, sent, headers=headers)) for path, sent, headers in replays]
    for (path, sent, headers), answer in zip(replays, answers, strict=True):
        wait_until(lambda: too_many(client.post("", client.fields("first"))), "a refusal")
        assert ok(client.post(path, sent, headers=headers)) == answer
        other = {"jobs": [client.fields("second")]} if "jobs" in sent else client.fields("second")
        refused(client.post(path, other, headers=headers), 422, "idempotency_mismatch")


def test_content_types_that_wait(client):
    client.create("one")
    client.create("two")
    numbers = itertools.count()
    wait_until(lambda: too_many(client.post("", client.fields(f"three-{next(numbers)}"))), "a refusal")
    ok(client.result(client.claim("one,two")))


def test_keys_that_do_not_count_from_one_address(limited, client):
    nobody = Client(limited.url, "jb_00000000_wrong", limited.files)
    hostile, honest = "203.0.113.1", "203.0.113.2"

    def attempt(address):
        return nobody.get("", headers={"X-Forwarded-For": f"198.51.100.1, {address}"})

    wait_until(lambda: attempt(hostile).status_code == 429, "a refusal")
    refused(attempt(hostile), 429, "too_many")
    refused(attempt(honest), 401, "unauthorized")
    ok(client.get("", headers={"X-Forwarded-For": honest}))
    ok(client.get("", headers={"X-Forwarded-For": hostile}))  # a key that is known does not suffer from it


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "real"),
    [
        ("192.0.2.1", "", (), "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", (), "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", ("10.0.0.0/8",), "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", ("10.0.0.0/8",), "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, nonsense", ("10.0.0.1",), "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", ("10.0.0.1",), "10.0.0.1"),
        ("2001:db8:1:2::3", "", (), "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "", (), "192.0.2.1"),
        ("::1", "[2001:db8::7]", ("::1",), "2001:db8::/64"),
        ("", "", (), "unknown"),
    ],
)
def test_the_real_address_is_the_last_one_that_no_trusted_proxy_added(peer, forwarded, trusted, real):
    assert real_address(peer, forwarded, trusted) == real


def waits_for_its_turn(client, body):
    """Whether there is no answer within some seconds."""
    try:
        ok(client.post("", body, timeout=5))
    except requests.ReadTimeout:
        return True
    return False


@pytest.mark.slow
def test_large_bodies_of_a_key_take_turns_and_those_of_others_do_not_wait(own_bridge):
    """Each is held in memory while it drips in; a leaked key must not fill the memory with them."""
    bridge = own_bridge(api_processes="1", celery=False, beat=False)
    hostile, honest = bridge.client(), bridge.client()
    head = {"Content-Type": "application/json", "Content-Length": "10000000"}
    large = honest.fields(task_options={"x": "x" * 1_000_000})
    with ExitStack() as dripping, ThreadPoolExecutor(1) as pool:
        for _ in range(MOST_READ):
            dripping.enter_context(hostile.begin("POST", "", head)).sendall(b"{")
        wait_until(lambda: waits_for_its_turn(hostile, large), "all turns to be taken", 60)
        waits = pool.submit(hostile.post, "", large)
        ok(honest.post("", large))
        hostile.create()
        assert waits_for_its_turn(hostile, large)
        dripping.close()
        ok(waits.result(timeout=60))


def test_a_poll_for_too_many_content_types_is_refused_and_the_key_polls_on(own_bridge):
    """A key without content types could wait for any number of queues, which all would be looked at each second."""
    client = own_bridge(limits="content_types=2", api_processes="1", celery=False, beat=False).client()
    named = {"lease": 60, "worker_id": "w3"}
    job_id = client.create("elsewhere")
    assert [job["job_id"] for job in ok(client.poll("elsewhere", claim_id="c1", **named))["jobs"]] == [job_id]
    with ThreadPoolExecutor(1) as pool:
        parked = pool.submit(client.poll, "here,there", wait=60)
        wait_until(lambda: "bridge_parked_polls 1.0" in client.get("/metrics").text, "the poll to be parked")
        assert too_many(client.poll("elsewhere"))
        # One that names its claim is refused only after a look at what it was given.
        assert too_many(client.poll("elsewhere", claim_id="c2", **named))
        again = ok(client.poll("elsewhere", claim_id="c1", wait=60, **named))["jobs"]
        assert [job["job_id"] for job in again] == [job_id]
        ok(client.poll("here", worker_id="w2"))
        client.create("there")
        assert ok(parked.result(timeout=60))["jobs"]
    ok(client.poll("elsewhere,somewhere"))
