"""Errors: problem+json with a code on every one, and nothing that a client sends gets a 500."""

import json
import socket
from urllib.parse import urlsplit

import orjson
import pytest
from flask import Flask
from sqlalchemy import text

from api.http import problems
from bridge.names import API_BASE
from tests.support.client import Client, ok, refused

JSON = {"Content-Type": "application/json"}
UNKNOWN = "00000000-0000-7000-8000-000000000000"
WITH_BODY = [
    ("POST", ""),
    ("PUT", f"{UNKNOWN}/result"),
    ("POST", f"{UNKNOWN}/heartbeat"),
    ("PUT", f"{UNKNOWN}/progress"),
    ("POST", f"{UNKNOWN}/release"),
]


def send(client, method, path, body, **headers):
    return client.request(method, path, data=body, headers={**JSON, **headers})


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize(
    "body", [b"{", b"{'a': 1}", b'{"a": 1,}', b"[", b"nul", b'"\xff"', b"\xef\xbb\xbf{}", b"{} {}"]
)
def test_malformed_json_is_a_400(client, method, path, body):
    refused(send(client, method, path, body), 400, "malformed")


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"5", b"true", b"[{}]"])
def test_json_that_is_no_object_is_a_422(client, method, path, body):
    assert refused(send(client, method, path, body), 422, "validation")["errors"]


@pytest.mark.parametrize("path", ["", f"{UNKNOWN}/result", f"{UNKNOWN}/progress"])
def test_a_body_that_is_missing_is_a_422_that_names_the_required_fields(client, path):
    method = "POST" if path == "" else "PUT"
    assert refused(client.request(method, path), 422, "validation")["errors"]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_media_type_is_a_415(client, method, path, media):
    body = json.dumps(client.fields())
    refused(client.request(method, path, data=body, headers={"Content-Type": media}), 415, "unsupported_media_type")


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"])
def test_every_spelling_of_json_is_taken(client, media):
    body = json.dumps(client.fields())
    ok(client.request("POST", "", data=body, headers={"Content-Type": media}))


def test_an_encoded_body_is_a_415(client):
    body = json.dumps(client.fields())
    refused(send(client, "POST", "", body, **{"Content-Encoding": "gzip"}), 415, "unsupported_media_type")


def test_a_repeated_query_parameter_is_refused_by_name(client):
    for path in (
        "?limit=1&limit=2",
        "?status=pending&status=pending",
        "poll?worker_id=w&content_types=a&wait=0&wait=1",
        "poll?worker_id=w&worker_id=w&content_types=a&wait=0",
        "poll?worker_id=w&content_types=a&content_types=b&wait=0",
    ):
        (field,) = refused(client.get(path), 422, "validation")["errors"]
        assert path.count(f"{field}=") == 2


# Bodies that are too large: a bridge of its own, so that the bodies need not be.


@pytest.fixture(scope="module")
def small_bodies(start_bridge):
    bridge = start_bridge(celery=False, beat=False, max_body_bytes="2048", api_processes="1")
    yield bridge
    bridge.stack.stop()


def test_a_body_over_the_limit_is_a_413_and_ends_the_holders_attempt(small_bodies):
    bridge, client = small_bodies, small_bodies.client()
    large = {"success": True, "content": "x" * 4096}

    refused(client.post("", client.fields(task_options={"x": "x" * 4096})), 413, "too_large")
    chunks = client.request("POST", "", data=iter([b'{"a": "', b"x" * 4096, b'"}']), headers=JSON)
    refused(chunks, 413, "too_large")
    refused(client.put(f"{UNKNOWN}/result", large), 404)

    client.create()
    job = client.claim()
    other = bridge.client(client.tenant, ("work",))
    refused(other.put(f"{job['job_id']}/result", large, headers={"X-Lease-Token": job["lease_token"]}), 413)
    refused(client.put(f"{job['job_id']}/result", {**large, "lease_token": "stale"}), 413, "too_large")
    unproven = {**large, "content": '"lease_token": "' + job["lease_token"] + '"' + "x" * 4096}  # only text
    refused(client.put(f"{job['job_id']}/result", unproven), 413, "too_large")
    refused(client.post(f"{job['job_id']}/heartbeat", {"message": "x" * 4096}), 413, "too_large")
    assert client.status(job["job_id"]) == "processing"

    answer = client.put(f"{job['job_id']}/result", large, headers={"X-Lease-Token": job["lease_token"]})
    assert "2048" in refused(answer, 413, "too_large")["detail"]
    assert answer.headers["X-Job-Status"] == "failed"
    assert "BRIDGE_MAX_BODY_BYTES" in client.job(job["job_id"])["error_message"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("before", [0, 1000, 2048, 9000, 3_000_000])
def test_the_token_of_a_result_over_the_limit_is_found_wherever_it_stands(small_bodies, chunked, before):
    client = small_bodies.client()
    client.create()
    job = client.claim()
    token = job["lease_token"]
    body = b'{"metadata": {"x": "%s"}, "lease_token": "%s", "content": "%s"}' % (
        b"x" * before,
        token.encode(),
        b"x" * 4096,
    )

    data = iter([body[:-5000], body[-5000:]]) if chunked else body
    answer = client.request("PUT", f"{job['job_id']}/result", data=data, headers=JSON)

    refused(answer, 413, "too_large")
    assert answer.headers["X-Job-Status"] == client.status(job["job_id"]) == "failed"


def test_a_result_over_the_limit_is_read_on_only_from_a_key_whose_result_could_count(small_bodies):
    client = small_bodies.client()
    client.create()
    job = client.claim()
    for key, who in ((small_bodies.client(client.tenant, ("work",)).key, "another key"), (client.key, "stale")):
        if who == "stale":
            ok(client.result(job))
        head = f"PUT {API_BASE}/{job['job_id']}/result HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        at = urlsplit(small_bodies.url)
        with socket.create_connection((at.hostname, at.port), timeout=60) as connection:
            connection.sendall(head.encode() + b"1000\r\n" + b"x" * 4096 + b"\r\n")  # and nothing more, for ever
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 "), who


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(small_bodies, chunked):
    client = small_bodies.client()
    fields = client.fields(task_options={"x": ""})
    fields["task_options"]["x"] = "x" * (2048 - len(orjson.dumps(fields)))
    fits = orjson.dumps(fields)

    def send(body):
        return client.request("POST", "", data=iter([body]) if chunked else body, headers=JSON)

    assert send(fits).status_code == 200
    refused(send(fits + b" "), 413, "too_large")


# Addresses and methods.


@pytest.mark.parametrize(
    "job_id", ["nonsense", UNKNOWN, UNKNOWN.upper(), "0" * 32, f"{{{UNKNOWN}}}", "%00", "%ff", "x" * 300]
)
def test_what_is_no_job_of_ours_is_a_404_that_says_not_found(client, job_id):
    for path in (job_id, f"{job_id}/status", f"{job_id}/result", f"{job_id}/download"):
        assert "not found" in refused(client.get(path), 404, "not_found")["detail"]


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/api/v2/remote-jobs", "/nothing?x=1", "/docs/none", "/%00"])
def test_an_unknown_address_is_a_404(client, path):
    refused(client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("TRACE", "", {"GET", "POST"}),
        ("DELETE", "", {"GET", "POST"}),
        ("PUT", "", {"GET", "POST"}),
        ("POST", "poll", {"GET"}),
        ("TRACE", "poll", {"GET"}),
        ("GET", f"{UNKNOWN}/heartbeat", {"POST"}),
        ("POST", f"{UNKNOWN}/result", {"GET", "PUT"}),
        ("PATCH", f"{UNKNOWN}/progress", {"PUT"}),
        ("POST", "/healthz", {"GET"}),
        ("TRACE", "/metrics", {"GET"}),
    ],
)
def test_a_method_that_is_not_there_is_a_405_that_names_those_that_are(client, method, path, allowed):
    answer = client.request(method, path)
    refused(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].replace(" ", "").split(",")) - {"HEAD", "OPTIONS"} == allowed


def test_an_unknown_method_is_refused_too(client):
    assert client.request("BREW", "").status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", API_BASE, 200),
        ("GET", f"{API_BASE}/", 200),
        ("GET", f"{API_BASE}/?limit=1", 200),
        ("POST", API_BASE, 200),
        ("POST", f"{API_BASE}/", 200),
        ("GET", f"{API_BASE}/{UNKNOWN}/", 404),
        ("GET", f"{API_BASE}/{UNKNOWN}/status/", 404),
        ("GET", f"{API_BASE}/poll/?worker_id=w&content_types=a&wait=0", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/docs", 200),
        ("GET", "/docs/", 200),
    ],
)
def test_the_bases_answer_with_both_slashes_and_nothing_redirects(client, method, path, status):
    body = client.fields() if method == "POST" else None
    assert client.request(method, path, json=body, allow_redirects=False).status_code == status


# X-Request-ID.


@pytest.mark.parametrize("sent", ["a", "~" * 128, "!#$%&'()*+,-./:;<=>?@[]^_`{|}"])
def test_a_clients_own_request_id_comes_back(client, sent):
    for path in ("/healthz", "", "nonsense", "/nothing"):
        assert client.get(path, headers={"X-Request-ID": sent}).headers["X-Request-ID"] == sent


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "ü".encode().decode("latin-1")])
def test_a_request_id_that_is_none_is_replaced_by_one_of_ours(client, sent):
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = [client.get(path, headers=headers).headers["X-Request-ID"] for path in ("/healthz", "nonsense")]
    assert len(set(ids)) == 2
    assert all(len(one) == 32 and one != sent for one in ids)


# The corpus of notes/traps.md: each of these was a 500, or accepted, in some stack.

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
    client.create()
    job = client.claim(lease=None)
    result = send(client, "PUT", f"{job['job_id']}/result", b'{"success": true, "metadata": {"x": ' + value + b"}}")
    assert result.status_code in (400, 422), result.text
    heartbeat = send(client, "POST", f"{job['job_id']}/heartbeat", b'{"message": ' + value + b"}")
    assert heartbeat.status_code in (400, 409, 422), heartbeat.text
    for answer in (create, result, heartbeat):
        refused(answer, answer.status_code)
    assert client.job(job["job_id"])["job_id"] == job["job_id"]  # it can still be read


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_every_field_survives_a_value_that_it_cannot_have(client, value):
    for field in client.fields():
        fields = {name: given for name, given in client.fields().items() if name != field}
        body = json.dumps(fields)[:-1].encode() + b', "' + field.encode() + b'": ' + value + b"}"
        answer = send(client, "POST", "", body)
        assert answer.status_code in (400, 422)
        refused(answer, answer.status_code)


def test_a_body_nested_100_000_deep_is_refused(client):
    for method, path in WITH_BODY:
        assert send(client, method, path, DEEP).status_code in (400, 404, 422)


@pytest.mark.parametrize(
    "body", [b'{"success": true, "success": false}', b'{"success": true, "metadata": {"a": 1, "a": 2}}']
)
def test_duplicate_keys_are_no_json_of_ours(client, body):
    client.create()
    job = client.claim(lease=None)
    answer = send(client, "PUT", f"{job['job_id']}/result", body)
    assert answer.status_code in (400, 422)
    refused(answer, answer.status_code)
    assert client.status(job["job_id"]) != "completed"


@pytest.mark.parametrize("number", [b"1e22", b"-0.0", b"0.1", b"1.5e-7", b"9007199254740992"])
def test_numbers_come_back_as_they_were_sent(client, number):
    body = json.dumps(client.fields())[:-1].encode() + b', "task_options": {"x": ' + number + b"}}"
    job_id = ok(send(client, "POST", "", body))["job_id"]
    for given in (client.claim()["task_options"]["x"], client.job(job_id)["task_options"]["x"]):
        assert repr(given) == repr(json.loads(number))


@pytest.mark.parametrize(
    "header", ["Idempotency-Key", "X-Lease-Token", "X-API-Key", "Range", "If-Range", "If-None-Match"]
)
@pytest.mark.parametrize(
    "value", ["é".encode().decode("latin-1"), "\x7f", '"', "x" * 5000, "bytes=" + "9" * 5000 + "-"]
)
def test_no_header_gets_a_500(client, header, value):
    client.create()
    job = client.claim(lease=None)
    for answer in (
        client.post("", client.fields(), headers={header: value}),
        client.get(job["source_file_url"], headers={header: value}),
        client.post(f"{job['job_id']}/heartbeat", {}, headers={header: value}),
    ):
        assert answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "query", ["%00=1", "worker_id=%ff", "a=%", "&&&=", "limit=%F0%9F%98%80", "limit=" + "9" * 5000]
)
def test_no_query_gets_a_500(client, query):
    for path in ("", "poll", f"{UNKNOWN}/status", f"{UNKNOWN}/download"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code in (200, 404, 422), answer.text


def raw(client: Client, request: bytes) -> bytes:
    """The first bytes of the answer to bytes that no HTTP client would send."""
    address = urlsplit(client.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
        b"POST /api/v1/remote-jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    ],
    ids=["version", "no HTTP", "long line", "long header", "negative length", "two lengths", "bad name", "NUL"],
)
def test_what_is_no_proper_http_is_a_problem_too(client, request_):
    head, _, body = raw(client, request_).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert 400 <= status < 500 or status == 505
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status


def test_a_body_that_breaks_off_is_a_400(client):
    head = (
        f"POST {API_BASE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\n"
        'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"a"'
    )
    answer = raw(client, head.encode())
    assert answer == b"" or answer.split()[1] == b"400"


def test_an_error_names_no_path_of_the_server_no_sql_and_no_code(client):
    for answer in (
        client.post("", client.fields(source_file_path="/etc/passwd")),
        client.get("nonsense"),
        client.get("?cursor=x"),
        send(client, "POST", "", b"{"),
    ):
        for word in ("Traceback", "SELECT", "psycopg2", "sqlalchemy", "site-packages", str(client.files)):
            assert word not in answer.text


# Errors that no request of ours can make on purpose: the last walls.


@pytest.fixture
def walled(core_engine):
    """The error handlers on views that fail."""
    app = Flask("walled")
    problems.register(app)

    def fail(statement):
        with core_engine.connect() as connection:
            connection.execute(text(statement))

    app.add_url_rule("/data", view_func=lambda: fail("SELECT 1 / 0"), endpoint="data")
    app.add_url_rule("/depth", view_func=lambda: fail("SELECT (repeat('[', 100000))::json"), endpoint="depth")
    app.add_url_rule("/bug", view_func=lambda: fail("SELECT nonsense FROM nowhere"), endpoint="bug")
    app.add_url_rule("/away", view_func=lambda: fail("SET statement_timeout = 1; SELECT pg_sleep(5)"), endpoint="away")
    return app.test_client()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/data", 422, "validation"),
        ("/depth", 422, "validation"),
        ("/bug", 500, "internal"),
        ("/away", 503, "unavailable"),
    ],
)
def test_what_postgresql_refuses_becomes_a_problem_that_quotes_nothing(walled, path, status, code):
    answer = walled.get(path)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.json["code"] == code
    for word in ("nonsense", "nowhere", "zero", "psycopg2", "SELECT", "Traceback"):
        assert word not in answer.text
