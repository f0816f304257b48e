"""Polls whose clients have gone hold nothing for long, and those that wait leave places for all else."""

import socket
import time
from contextlib import ExitStack, contextmanager

import pytest
import requests

from api.http.gunicorn_response import TimedResponse
from bridge.names import API_BASE
from tests.support.client import ok
from tests.support.parking import park, parked, parking
from tests.support.waiting import wait_until

CONNECTIONS, PARKED_OF_A_KEY = 64, 40
PLACES_FOR_POLLS = CONNECTIONS * 7 // 8
SOON = 40  # seconds: each poll ends by itself after 60


@pytest.fixture(scope="module")
def small(start_bridge):
    """Return a bridge of one process that accepts few connections, and few waiting polls of a key."""
    return start_bridge(
        celery=False, beat=False, api_processes="1", api_connections=str(CONNECTIONS), log_level="warning",
        limits=f"parked={PARKED_OF_A_KEY}",
    )  # fmt: skip


@pytest.fixture
def client(small):
    return small.client()


def test_polls_whose_clients_have_gone_hold_no_place_although_there_is_no_job(client):
    with parking(client, ["audio"] * PARKED_OF_A_KEY):
        assert client.poll(wait=1).status_code == 429, "the limit of the key"
    wait_until(lambda: parked(client) == 0, "the hang-ups to be noticed", SOON)
    with parking(client, ["audio"] * PARKED_OF_A_KEY):
        pass


def test_a_hang_up_by_a_reset_is_one_and_a_client_that_waits_is_not_taken_for_gone(client):
    with parking(client, ["audio", "video"]) as (gone, waits):
        gone.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER of no time: closing resets
        gone.close()
        wait_until(lambda: parked(client) == 1, "the reset to be noticed", SOON)
        client.create("video")
        waits.settimeout(20)
        assert waits.recv(12) == b"HTTP/1.1 200"


def test_who_can_send_nothing_more_has_gone_and_costs_no_answer(client):
    with parking(client, ["audio"]) as (half_closed,):
        half_closed.shutdown(socket.SHUT_WR)
        half_closed.settimeout(20)
        assert half_closed.recv(1) == b""


def test_polls_leave_places_for_creates_results_and_health(small, client):
    others = small.client()
    job_id = client.create("first")
    job = client.claim("first", wait=0)
    assert client.get("/healthz").headers["Connection"] == "keep-alive"
    polls = [park(client if n < PARKED_OF_A_KEY else others, "audio") for n in range(PLACES_FOR_POLLS)]
    try:
        wait_until(lambda: parked(client) == PLACES_FOR_POLLS, "all places of polls to be taken")
        refused = others.poll(wait=5)
        assert refused.status_code == 429
        assert "This API process" in refused.json()["detail"]
        assert 1 <= int(refused.headers["Retry-After"]) <= 10
        # Each on a connection of its own, which the client would keep, and the server does no more.
        fresh = [requests.Session() for _ in range(2 * (CONNECTIONS - PLACES_FOR_POLLS))]
        answers = [session.get(f"{client.url}/healthz", timeout=20) for session in fresh]
        assert {answer.status_code for answer in answers} == {200}
        assert answers[-1].headers["Connection"] == "close"
        assert client.create("second")
        assert ok(client.result(job))["status"] == "completed"
        assert client.status(job_id) == "completed"
    finally:
        for poll in polls:
            poll.close()
    wait_until(lambda: parked(client) == 0, "the hang-ups to be noticed", SOON)


@contextmanager
def many(small, head):
    """Send this on three times as many connections as there are, and read nothing; yield the last one."""
    with ExitStack() as held:
        for _ in range(3 * CONNECTIONS):
            begun = held.enter_context(socket.create_connection(("127.0.0.1", small.settings.port), 60))
            begun.sendall(head.encode())
        yield begun


@pytest.mark.parametrize(("key", "length"), [("client", 1000), ("client", 1_000_000), ("reader", 1000)])
def test_bodies_that_do_not_come_leave_places_for_all_else(small, client, key, length):
    """Those of one key, waited for, waiting for their turn, or refused and read to their end."""
    sender = client if key == "client" else small.client(tenant=client.tenant, scopes=("read",))
    head = f"POST {API_BASE}/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {sender.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{"
    with many(small, head):
        other = small.client()
        for _ in range(5):
            requests.Session().get(f"{small.url}/healthz", timeout=60).raise_for_status()
            other.create("audio")


def test_downloads_that_nobody_reads_leave_places_for_all_else(small, client):
    job = client.held("video", source_file_path=client.source(bytes(8 * 1024 * 1024)))
    head = f"GET {API_BASE}/{job['job_id']}/download HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {client.key}\r\n\r\n"
    with many(small, head) as begun:
        assert begun.recv(15) == b"HTTP/1.1 200 OK"
        began = time.monotonic()
        other = small.client()
        for _ in range(20):
            requests.Session().get(f"{small.url}/healthz", timeout=60).raise_for_status()
            other.create("audio")
        assert time.monotonic() - began < TimedResponse.seconds, "nobody waits for their time to be over"
