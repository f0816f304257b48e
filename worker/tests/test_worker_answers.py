"""Answers that are too large, encoded, of the wrong form, or from another host."""

from __future__ import annotations

import io
import itertools
from tempfile import TemporaryFile

import pytest
import requests
import urllib3
from bounds import MIB, ROUTES, bomb, memory_below
from scripted_bridge import BASE, JOB_ID, Say, claim, jobs

from bridge_worker import transfers
from bridge_worker.answers import RETRY_AFTER_LIMIT, Answer, CallFailed, read_bounded, refusal
from bridge_worker.claim import read_claim
from bridge_worker.client import BridgeClient
from bridge_worker.download import Download
from jobbridge_client.answers import document, patient
from jobbridge_client.downloads import Saving, receive
from jobbridge_client.steps import Request


@pytest.fixture
def calls(client, held):
    """Return each kind of call whose answer is JSON, by the name of its route."""
    return {
        "poll": lambda: client.poll("c" * 32, ["audio"], 1, 0, 60),
        "heartbeat": lambda: client.heartbeat(held.claim, {}),
        "result": lambda: client.submit(held.claim, b"{}"),
        "release": lambda: client.release(held.claim),
        "uploads": lambda: transfers.run(client, held, "upload", announced(), lambda _: None),
    }


def announced():
    """Announce an upload, in one try."""
    return Answer(document((yield from patient(Request("POST", "/api/v1/uploads"), 0.0))), None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_encoded_answer_is_not_unpacked(bridge, calls, encoding):
    data = bomb(encoding, 64 * MIB)
    assert len(data) < MIB // 8
    for route, status in itertools.product(ROUTES, [200, 503]):
        bridge.script(route, Say(status, data=data, headers={"Content-Encoding": encoding}))
        with memory_below(4 * MIB), pytest.raises(CallFailed) as failed:
            calls[route]()
        assert failed.value.retryable
        assert bridge.next(route).headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("route", ["heartbeat", "result", "release", "uploads"])
def test_an_answer_without_an_end_is_not_read_to_it(bridge, calls, route):
    bridge.script(route, Say(stream=itertools.repeat(b" " * 65536)))
    with memory_below(8 * MIB), pytest.raises(CallFailed, match="more than 1048576 bytes"):
        calls[route]()
    bridge.script(route, Say(503, stream=itertools.repeat(b" " * 65536)))
    with memory_below(8 * MIB), pytest.raises(CallFailed, match="503"):
        calls[route]()


def test_a_poll_without_an_end_is_not_read_to_it(bridge, calls):
    bridge.script("poll", Say(stream=itertools.repeat(b" " * MIB)))
    with memory_below(150 * MIB), pytest.raises(CallFailed, match="more than 67108864 bytes"):
        calls["poll"]()


def test_small_json_does_not_become_large_memory(bridge, calls):
    bridge.script("poll", Say(data=b'{"jobs": [' + b"[]," * MIB + b"[]]}"))  # 3 MiB; 70 as lists
    with memory_below(30 * MIB), pytest.raises(CallFailed, match="more than 1000000"):
        calls["poll"]()


def test_many_commas_in_a_text_are_one_value(bridge, calls):
    options = {"table": 'a "quoted", ' * 1_100_000}
    bridge.script("poll", jobs(claim(task_options=options)))
    assert calls["poll"]()[0].task_options == options


WRONG_ANSWERS = [
    b"", b"[]", b'"text"', b"null", b"7", b"{", b'{"a":', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"jobs": {}}', b'{"jobs": "text"}', b'{"jobs": 7}', b'{"jobs": [7, null, "x", []]}',
    b'{"job_id": [], "jobs": null}', b'{"job_id": {"a": "b"}}', b'{"jobs": [' + b"9" * 5000 + b"]}",
    b'{"status": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"cancel_requested": "true"}', b'{"status": {"a": 1e999}}',
]  # fmt: skip


@pytest.mark.parametrize("data", WRONG_ANSWERS, ids=lambda data: repr(data[:30]))
def test_an_answer_of_the_wrong_form_is_a_failed_call_or_nothing(bridge, calls, data):
    for route, status in itertools.product(ROUTES, [200, 401, 503]):
        bridge.script(route, Say(status, data=data))
        failure = ""
        try:
            answer = calls[route]()
            assert answer == [] or isinstance(answer.body, dict)
        except CallFailed as failed:
            failure = str(failed)
        assert "\n" not in failure
        assert len(failure) < 1000
        assert failure or status == 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), ("7", 7), ("2.5", 2.5), ("-5", 0), ("1e999", RETRY_AFTER_LIMIT), ("9" * 400, RETRY_AFTER_LIMIT),
        ("86400", RETRY_AFTER_LIMIT), ("inf", RETRY_AFTER_LIMIT), ("-inf", 0), ("nan", None), ("", None),
        ("soon", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_LIMIT), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 99 Dec 2026 99:99:99 GMT", None), ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_bounded(value, seconds):
    answer = requests.Response()
    answer.status_code, answer.raw = 503, urllib3.HTTPResponse(io.BytesIO(b"{}"), preload_content=False)
    answer.headers["Retry-After"] = value
    assert refusal(answer).retry_after == seconds


def test_a_redirect_is_told_and_not_followed(bridge, calls, client, held, tmp_path, elsewhere):
    for route, status in itertools.product(ROUTES, [301, 302, 303, 307, 308]):
        bridge.script(route, Say(status, headers={"Location": f"{elsewhere.url}{BASE}/{route}"}))
        with pytest.raises(CallFailed, match=r"redirected to .*: use that address as the URL"):
            calls[route]()
    endless = itertools.repeat(b"x" * 65536)  # is not read to its end
    there = {"Location": f"{elsewhere.url}{BASE}/{JOB_ID}/download"}
    bridge.script("download", Say(302, headers=there, stream=endless))
    with pytest.raises(CallFailed, match="redirected"):
        Download(client, held, tmp_path).fetch()
    assert elsewhere.is_unasked()


def test_a_source_on_another_host_is_not_asked_for(bridge, run, elsewhere):
    host = elsewhere.url.removeprefix("http://")
    places = [
        f"{elsewhere.url}/download", f"//{host}/download", f"/\\{host}/download", f"\\\\{host}/download",
        f"@{host}/download", f":80@{host}/download", f"http:{host}/download", f"/\t/{host}/download", "download", "",
        "/x y", "/é", "/" + "x" * 3000, 7, [],
    ]  # fmt: skip
    bridge.script("poll", *(jobs(claim(source_file_url=place)) for place in places))
    run("text")
    for place in places:
        body = bridge.next("result").body
        assert not body["success"], place
        assert "elsewhere" in body["error_message"], place
    assert elsewhere.is_unasked()
    assert bridge.calls_left("download") == 0


def test_no_proxy_gets_the_key_of_a_bridge_on_this_machine(bridge, elsewhere, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, elsewhere.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    BridgeClient(bridge.url, "the-key", "w1").heartbeat(read_claim(claim()), {})
    assert bridge.next("heartbeat").headers["authorization"] == "Bearer the-key"
    assert elsewhere.is_unasked()
    BridgeClient(bridge.url.replace("http", "HTTP"), "the-key", "w1").heartbeat(read_claim(claim()), {})
    assert elsewhere.is_unasked()
    assert BridgeClient("https://bridge.example", "the-key", "w1")._job_session.trust_env, (
        "over TLS one may lie between"
    )


def test_an_answer_that_takes_too_long_is_given_up():
    answer = requests.Response()
    answer.raw = urllib3.HTTPResponse(io.BytesIO(b"{}"), preload_content=False)
    with pytest.raises(CallFailed, match="does not come to its end"):
        read_bounded(answer, 100, -61.0)  # its time was over before it began


def test_a_store_that_cannot_be_reached_is_named(bridge, client, held):
    bridge.script("download", Say(307, headers={"Location": "http://127.0.0.1:1/file?signature=x"}))
    with TemporaryFile() as file:
        steps = receive(f"{BASE}/x/download", Saving(file), 0.0)
        with pytest.raises(CallFailed, match="no answer from the bridge's store: connection refused"):
            transfers.run(client, held, "download", steps, lambda _: None)
