"""What the client does with answers that are not the bridge's, or come too often."""

import gzip
import json
import socket
import time

import httpx2
import pytest

from jobbridge_client import BadAnswer, BadSetting, Client, Refused, TooMany, Unreachable, async_client, connection
from jobbridge_client import client as sync_client
from jobbridge_client.steps import Request
from tests.support.scripted_answers import answer, asked, scripted

STATUS = b'{"job_id": "1", "status": "pending", "created_at": "2026-11-24T10:00:00+00:00", "later": [1]}'
PROBLEM = b'{"status": 429, "code": "too_many", "detail": "Slowly."}'


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("200 OK", gzip.compress(STATUS), "Content-Encoding: gzip"), "Content-Encoding 'gzip'"),
        (answer("200 OK", b" " * (2**20 + 1)), "more than 1048576 bytes"),
        (answer("200 OK", b"[" * 100_000), "not the bridge"),
        (answer("200 OK", b"<html>"), "not the bridge"),
        (answer("200 OK", STATUS.replace(b'"pending"', b"7")), "status is int, not str"),
        (answer("200 OK", STATUS.replace(b"2026", b"x")), "created_at is not a timestamp"),
        (answer("302 Found", b"", "Location: http://elsewhere.example/"), "redirects to 'http://elsewhere.example/'"),
    ],
)
def test_an_answer_that_is_not_the_bridges_is_refused(given, reason):
    with asked(given, key="the-key") as (client, server), pytest.raises(BadAnswer, match=reason):
        client.status("1")
    assert len(server.heads) == 1
    assert "authorization: bearer the-key" in server.heads[0].lower()
    assert "accept-encoding: identity" in server.heads[0].lower()


@pytest.mark.parametrize(
    ("call", "body", "member"), [("page", {"jobs": [7]}, "jobs"), ("artifacts", {"items": ["a"]}, "items")]
)
def test_a_list_of_something_else_is_refused(call, body, member):
    told, reason = answer("200 OK", json.dumps(body).encode()), f"{member} has something else in it"
    with asked(told) as (client, _), pytest.raises(BadAnswer, match=reason):
        getattr(client, call)(*(["1"] if call == "artifacts" else []))


def test_a_whole_number_is_a_progress_too():
    with asked(answer("200 OK", STATUS.replace(b"{", b'{"progress": 1, ', 1))) as (client, _):
        assert repr(client.status("1").progress) == "1.0"


def test_an_answer_that_does_not_end_in_its_time_is_given_up(either, monkeypatch):
    for module in (sync_client, async_client):
        monkeypatch.setattr(module, "BEYOND_SECONDS", -61.0)  # it was over before it began
    with scripted(answer("200 OK", STATUS)) as server, pytest.raises(BadAnswer, match="does not come to its end"):
        either("status", "1", url=server.url)


def test_a_server_that_says_nothing_is_named():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}") as client,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ gave no answer in time"),
    ):
        client.call("GET", "/", seconds=0.1)


def test_a_request_that_cannot_be_sent_is_a_wrong_setting():
    with asked(answer("200 OK", STATUS)) as (client, server), pytest.raises(BadSetting, match="request cannot be sent"):
        client.call("GET", "/", headers={"X-Name": "two\r\nlines"})
    assert not any(server.heads)


def test_a_file_does_not_come_unencrypted_where_the_bridge_is_asked_over_tls():
    away = Request("GET", "http://store.example.org/file", away=True)
    with (
        httpx2.Client(base_url="https://bridge.example.org", headers={"Authorization": "Bearer key"}) as http,
        pytest.raises(BadAnswer, match="http address"),
    ):
        connection.built(http, away, None)


def test_a_busy_bridge_is_asked_again_when_it_says_and_not_sooner():
    busy = answer("429 Too Many Requests", PROBLEM, "Retry-After: 1")
    broken = answer("503 Service Unavailable", PROBLEM)
    with asked(busy, broken, answer("200 OK", STATUS)) as (client, server):
        began = time.monotonic()
        assert client.status("1").data["later"] == [1]
        assert time.monotonic() - began >= 1.0
    assert len(server.heads) == 3


def test_patience_ends_at_once_where_the_pause_goes_beyond_it():
    busy = answer("429 Too Many Requests", PROBLEM, "Retry-After: 3600", "X-Request-ID: r-1")
    with asked(busy, patience=5) as (client, _), pytest.raises(TooMany, match="429 too_many: Slowly") as refused:
        client.status("1")
    assert (refused.value.retry_after, refused.value.request_id) == (3600.0, "r-1")
    with asked(answer("500 Internal", b"?"), patience=0) as (client, server), pytest.raises(Refused, match="500 error"):
        client.status("1")
    with Client(server.url, patience=0) as client, pytest.raises(Unreachable, match="cannot be reached"):
        client.status("1")


def test_no_cookie_is_kept():
    with asked(answer("200 OK", STATUS, "Set-Cookie: a=b")) as (client, server):
        client.status("1")
        client.status("1")
    assert "cookie" not in server.heads[1].lower()


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [
        ("bridge.example.org", None, "must look like"),
        ("ftp://bridge.example.org", None, "must look like"),
        ("https://user@bridge.example.org", None, "must look like"),
        ("https://bridge.example.org?x", None, "must look like"),
        ("https://bridge.example.org:x", None, "must look like"),
        ("https://a b", None, "must look like"),
        ("https://bridge.example.org", "new\nline", "visible ASCII"),
        ("http://bridge.example.org", "key", "unencrypted"),
        ("http://127.0.0.1.example.org", "key", "unencrypted"),
    ],
)
def test_an_address_or_key_that_cannot_be_one_is_refused(url, key, reason):
    with pytest.raises(BadSetting, match=reason):
        Client(url, key)


def test_patience_is_not_below_0():
    with pytest.raises(BadSetting, match="patience"):
        Client("https://bridge.example.org", patience=-0.1)


def test_a_key_goes_over_plain_http_to_this_machine_or_where_that_is_said():
    for url in ("http://localhost:1", "http://127.0.0.2:1", "http://[::1]:1"):
        Client(url, "key").close()
    Client("http://bridge.example.org", "key", allow_http=True).close()


def test_an_id_that_leads_elsewhere_is_not_asked_for():
    with scripted(answer("200 OK", STATUS)) as server, Client(f"{server.url}/prefix/") as client:
        client.status("../a/b?c")
        for bad in ("", ".", ".."):
            with pytest.raises(BadSetting):
                client.status(bad)
    assert server.heads[0].startswith("GET /prefix/api/v1/remote-jobs/..%2Fa%2Fb%3Fc/status HTTP/1.1")
