"""Errors: problem+json with a code on every one."""

import json

import orjson
import pytest
from flask import Flask
from sqlalchemy import text

from api.http import problems
from bridge.names import API_BASE
from tests.support.bodies import JSON, UNKNOWN, WITH_BODY, send
from tests.support.client import ok, refused


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_malformed_json_is_a_400_and_what_is_no_object_a_422(client, method, path):
    for body in (b"{", b"{'a': 1}", b'{"a": 1,}', b"[", b"nul", b'"\xff"', b"\xef\xbb\xbf{}", b"{} {}"):
        refused(send(client, method, path, body), 400, "malformed")
    for body in (b"null", b"[]", b'"text"', b"5", b"true", b"[{}]"):
        assert refused(send(client, method, path, body), 422, "validation")["errors"]


@pytest.mark.parametrize("path", ["", f"{UNKNOWN}/result", f"{UNKNOWN}/progress"])
def test_a_body_that_is_missing_is_a_422_that_names_the_required_fields(client, path):
    method = "POST" if path == "" else "PUT"
    assert refused(client.request(method, path), 422, "validation")["errors"]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_another_media_type_is_a_415(client, method, path):
    body = json.dumps(client.fields())
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/b+json",
                  "application/json; charset=utf-16"):  # fmt: skip
        answer = client.request(method, path, data=body, headers={"Content-Type": media})
        refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("media", ["application/json; charset=UTF-8", "APPLICATION/JSON", "application/vnd.x+json"])
def test_every_spelling_of_json_is_taken(client, media):
    body = json.dumps(client.fields())
    ok(client.request("POST", "", data=body, headers={"Content-Type": media}))


def test_an_encoded_body_is_a_415(client):
    body = json.dumps(client.fields())
    for coding in ("gzip", "deflate", "br", "identity, gzip"):
        refused(send(client, "POST", "", body, **{"Content-Encoding": coding}), 415, "unsupported_media_type")


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
    return start_bridge(celery=False, beat=False, max_body_bytes="2048", api_processes="1")


def test_a_body_over_the_limit_is_a_413_and_ends_the_holders_attempt(small_bodies):
    bridge, client = small_bodies, small_bodies.client()
    large = {"success": True, "content": "x" * 4096}
    refused(client.post("", client.fields(task_options={"x": "x" * 4096})), 413, "too_large")
    chunks = client.request("POST", "", data=iter([b'{"a": "', b"x" * 4096, b'"}']), headers=JSON)
    refused(chunks, 413, "too_large")
    refused(client.put(f"{UNKNOWN}/result", large), 404)

    job = client.held()
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
    job = client.held()
    parts = b"x" * before, job["lease_token"].encode(), b"x" * 4096
    body = b'{"metadata": {"x": "%s"}, "lease_token": "%s", "content": "%s"}' % parts
    data = iter([body[:-5000], body[-5000:]]) if chunked else body
    answer = client.request("PUT", f"{job['job_id']}/result", data=data, headers=JSON)
    refused(answer, 413, "too_large")
    assert answer.headers["X-Job-Status"] == client.status(job["job_id"]) == "failed"


def test_a_result_over_the_limit_is_read_on_only_from_a_key_whose_result_could_count(small_bodies):
    client = small_bodies.client()
    job = client.held()
    for key, who in ((small_bodies.client(client.tenant, ("work",)), "another key"), (client, "stale")):
        if who == "stale":
            ok(client.result(job))
        headers = {**JSON, "Transfer-Encoding": "chunked"}
        with key.begin("PUT", f"{job['job_id']}/result", headers) as connection:
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")  # and nothing more, for ever
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


@pytest.mark.parametrize(
    "job_id", ["nonsense", "not-a-uuid", UNKNOWN, UNKNOWN.upper(), "0" * 32, f"{{{UNKNOWN}}}", "%00", "%ff", "x" * 300]
)
def test_what_is_no_job_of_ours_is_a_404_that_says_not_found(client, job_id):
    for path in (job_id, f"{job_id}/status", f"{job_id}/result", f"{job_id}/download"):
        assert "not found" in refused(client.get(path), 404, "not_found")["detail"]


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/api/v2/remote-jobs", "/nothing?x=1", "/docs/none", "/%00"])
def test_an_unknown_address_is_a_404(client, path):
    refused(client.get(path), 404, "not_found")


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
    """Return the error handlers on views that fail."""
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
