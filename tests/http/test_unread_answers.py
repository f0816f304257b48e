"""Answers that nobody reads: they end, they hold little memory, and too many of one key are refused."""

import errno
import socket
import time
from contextlib import ExitStack
from types import SimpleNamespace
from urllib.parse import urlencode, urlsplit

import gevent
import gevent.socket
import pytest

from api.http.gunicorn_response import PIECE, TimedResponse
from bridge.names import API_BASE
from tests.support.client import ok
from tests.support.memory_peak import processes
from tests.support.waiting import wait_until

MOST_GROWTH = 120 * 2**20  # of the process over its idle size
MOST_LEFT = 80 * 2**20  # after they have gone


def _answering(connection):
    request = SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: False, headers=[])
    response = TimedResponse(request, connection, SimpleNamespace(is_ssl=False))
    response.start_response("200 OK", [("Content-Length", str(64 * 2**20))])
    return response


def test_an_answer_that_is_not_read_is_given_up_and_one_that_is_read_slowly_is_not():
    here, there = gevent.socket.socketpair()  # type: ignore[attr-defined]
    with here, there:
        response = _answering(here)
        response.seconds = 1.0  # for a piece, of which a reader on a busy machine takes one in a fifth of that
        reader = gevent.spawn(_read_slowly, there)
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            response.write(b"x" * PIECE)
        reader.kill()
        response.seconds = 0.1
        with pytest.raises(BrokenPipeError) as end:
            response.write(b"x" * PIECE * 500)
        assert end.value.errno == errno.EPIPE


def _read_slowly(connection):
    while connection.recv(PIECE):
        gevent.sleep(0.03)


@pytest.fixture(scope="module")
def alone(start_bridge):
    bridge = start_bridge(api_processes="1", celery=False, beat=False)
    ok(bridge.client().get(""))
    bridge.idle = memory_of(bridge)
    return bridge


def memory_of(bridge):
    """Return the resident bytes of its one API process."""
    return max(child.memory_info().rss for child in processes(bridge))


def unread(stack, client, path):
    """Ask for a path and read no more than the head of its answer: the status and the head."""
    at = urlsplit(client.url)
    connection = stack.enter_context(socket.socket())
    connection.settimeout(60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((at.hostname, at.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {client.key}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    return int(head[9:12]), head.decode()


LARGE = """'{"x": "' || repeat('a', 12000000) || '"}'"""
SMALL = LARGE.replace("12000000", "15000")


def results(bridge, client):
    job_id = client.create("unread")
    ok(client.result(client.claim("unread")))
    bridge.sql("UPDATE job_results SET content = repeat('é💥\x01', 4000000) WHERE job_id = :id", id=job_id)
    return [f"{API_BASE}/{job_id}/result"]


def whole_jobs(bridge, client):
    job_id = client.create("unread")
    ok(client.result(client.claim("unread")))
    both = f"task_options = CAST({LARGE} AS json), result_data = json_build_object('metadata', CAST({LARGE} AS json))"
    bridge.sql(f"UPDATE remote_jobs SET {both} WHERE id = :id", id=job_id)
    return [f"{API_BASE}/{job_id}"]


def _fill(bridge, ids, text):
    filled = f"UPDATE remote_jobs SET task_options = CAST({text} AS json) WHERE id = ANY (CAST(:ids AS uuid[]))"
    bridge.sql(filled, ids=ids)


def pages(bridge, client):
    made = [client.create("unread") for _ in range(55)]
    for text, ids in ((LARGE, made[:5]), (SMALL, made[5:])):
        _fill(bridge, ids, text)
    return [f"{API_BASE}?limit=500"]


def _claims(bridge, client, jobs, text):
    """Return polls that repeat claims holding `jobs` each."""
    polls = []
    for claim in range(4):
        made = ok(client.post("batch", {"jobs": [client.fields("unread") for _ in range(jobs)]}))["jobs"]
        _fill(bridge, [job["job_id"] for job in made], text)
        query = {"worker_id": f"w{claim}", "max_jobs": jobs, "claim_id": f"c{claim}", "lease": 600}
        assert ok(client.poll("unread", **query, wait=20))["jobs"]
        polls.append(f"{API_BASE}/poll?content_types=unread&wait=0&{urlencode(query)}")
    return polls


def large_claims(bridge, client):
    return _claims(bridge, client, 1, LARGE)


def long_claims(bridge, client):
    return _claims(bridge, client, 100, SMALL)


@pytest.mark.parametrize("what", [results, whole_jobs, pages, large_claims, long_claims])
@pytest.mark.slow
def test_unread_answers_hold_little_memory_and_too_many_of_a_key_are_a_429(alone, what):
    client, other = alone.client(), alone.client()
    paths = what(alone, client)
    with ExitStack() as connections:
        answers = [unread(connections, client, paths[n % len(paths)]) for n in range(60)]
        statuses = [status for status, _ in answers]
        assert set(statuses) == {200, 429}, statuses
        assert statuses[:8] == [200] * 8, statuses
        assert all("\r\nRetry-After: 5\r\n" in head for status, head in answers if status == 429)
        assert memory_of(alone) - alone.idle < MOST_GROWTH
        ok(other.get(""))
        made = other.create("of-another", task_options={"x": "a" * 1_000_000})
        assert len(ok(other.get(made))["task_options"]["x"]) == 1_000_000
    wait_until(lambda: client.get(paths[0]).status_code == 200, "room after they have gone")
    wait_until(lambda: memory_of(alone) - alone.idle < MOST_LEFT, "memory back")
