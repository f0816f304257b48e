"""Nothing that a client sends gets a 500: values, numbers, headers, queries and what is no HTTP."""

import json

import pytest

from tests.support.bodies import UNKNOWN, WITH_BODY, send
from tests.support.client import ok, refused

# Each of these was a 500, or accepted, in some stack.

DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
VALUES = {
    "nested 100 000 deep": b"[" * 100_000 + b"]" * 100_000,
    "nested 1000 deep": b"[" * 1000 + b"]" * 1000,
    "nested 65 deep": b"[" * 65 + b"]" * 65,
    "5000 digits": b"9" * 5000,
    "beyond int8": b"9223372036854775808",
    "beyond 2^53": b"9007199254740993",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e5000": b"1e5000",
    "NUL": b'"\\u0000"',
    "raw NUL": b'"\x00"',
    "lone surrogate": b'"\\ud800"',
    "NUL in a key": b'{"\\u0000": 1}',
    "surrogate in a key": b'{"\\udfff": 1}',
    "invalid UTF-8": b'"\xc3\x28"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_value_that_cannot_be_stored_and_read_back_is_refused_everywhere(client, value):
    fields = json.dumps(client.fields())[:-1].encode()
    create = send(client, "POST", "", fields + b', "task_options": {"x": ' + value + b"}}")
    assert create.status_code in (400, 422), create.text
    assert ok(client.get(""))["jobs"] == []
    job = client.held(lease=None)
    result = send(client, "PUT", f"{job['job_id']}/result", b'{"success": true, "metadata": {"x": ' + value + b"}}")
    assert result.status_code in (400, 422), result.text
    heartbeat = send(client, "POST", f"{job['job_id']}/heartbeat", b'{"message": ' + value + b"}")
    assert heartbeat.status_code in (400, 409, 422), heartbeat.text
    for answer in (create, result, heartbeat):
        refused(answer, answer.status_code)
    assert client.job(job["job_id"])["job_id"] == job["job_id"]  # it can still be read
    for field in client.fields():
        others = {name: given for name, given in client.fields().items() if name != field}
        body = json.dumps(others)[:-1].encode() + b', "' + field.encode() + b'": ' + value + b"}"
        answer = send(client, "POST", "", body)
        assert answer.status_code in (400, 422)
        refused(answer, answer.status_code)


def test_a_body_nested_100_000_deep_is_refused(client):
    for method, path in WITH_BODY:
        assert send(client, method, path, DEEP).status_code in (400, 404, 422)


@pytest.mark.parametrize(
    "header", ["Idempotency-Key", "X-Lease-Token", "X-API-Key", "Range", "If-Range", "If-None-Match"]
)
def test_no_header_gets_a_500(client, header):
    job = client.held(lease=None)
    for value in ("é".encode().decode("latin-1"), "\x7f", '"', "x" * 5000, "bytes=" + "9" * 5000 + "-"):
        for answer in (
            client.post("", client.fields(), headers={header: value}),
            client.get(job["source_file_url"], headers={header: value}),
            client.post(f"{job['job_id']}/heartbeat", {}, headers={header: value}),
        ):
            assert answer.status_code < 500, (value, answer.text)


@pytest.mark.parametrize(
    "query", ["%00=1", "worker_id=%ff", "a=%", "&&&=", "limit=%F0%9F%98%80", "limit=" + "9" * 5000]
)
def test_no_query_gets_a_500(client, query):
    for path in ("", "poll", f"{UNKNOWN}/status", f"{UNKNOWN}/download"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code in (200, 404, 422), answer.text
