"""Who may do what, for every route of the OpenAPI document: a route that is added is in the matrix at once."""

import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from bridge.admission import keys
from tests.support.client import Client, ok, refused
from tests.support.of_an_attempt import sent
from tests.support.waiting import wait_until

SCOPES = ("submit", "work", "read", "admin")
PUBLIC = {"/health", "/healthz", "/readyz", "/metrics"}
UNKNOWN = "00000000-0000-7000-8000-000000000000"
MARK = "secret-of-the-tenant"
# What the document cannot say of a valid request.
QUERY = {"worker_id": "somebody", "content_types": "none", "wait": 0}
BODY = {"source_file_path": "{source}", "content_type": "none", "success": False, "percentage": 50, "scopes": ["read"]}


@pytest.fixture(scope="module")
def guarded(operations):
    found = [(*where, operation) for where, operation in operations.items() if "x-scopes" in operation]
    assert len(found) >= 15
    return found


class Sender:
    """Sends a valid request of each operation, as far as the document tells how."""

    def __init__(self, document, source):
        self.document = document
        self.one_of = {"source_file_path": source, "checkpoint": "x"}  # of what stands in another's place

    def send(self, client, method, path, operation, job_id=UNKNOWN, token=None, **given):
        parameters = [self.resolved(one) for one in operation.get("parameters", [])]
        query = {one["name"]: QUERY.get(one["name"], "1") for one in parameters
                 if one["in"] == "query" and (one.get("required") or one["name"] == "wait")}  # fmt: skip
        content = self.resolved(operation.get("requestBody", {})).get("content", {})
        json = content.get("application/json")
        body = self.example(json["schema"]) if json else None  # what takes bytes needs none to be refused, or let in
        headers = {} if token is None else {"X-Lease-Token": token}
        filled = re.sub(r"\{\w+\}", given.get("other", "nobody"), path.replace("{job_id}", job_id))
        return client.request(method, filled, params=query, json=body, headers=headers)

    def resolved(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def example(self, schema):
        schema = self.resolved(schema)
        if "enum" in schema:
            return schema["enum"][0]
        kind = schema.get("type", "object")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            properties = schema.get("properties", {})
            return {
                name: BODY[name] if name in BODY else self.example(properties[name])
                for name in schema.get("required", ())
            } | {name: value for name, value in self.one_of.items() if name in properties}
        if kind == "array":
            return [self.example(schema["items"])] if schema.get("minItems", 0) or "items" in schema else []
        return {"string": "x", "integer": 1, "number": 1, "boolean": True}[kind]


@pytest.fixture
def sender(document, client):
    return Sender(document, client.source())


@pytest.fixture
def held(bridge, client):
    """Create a job held by a worker, with a mark in each of its texts; return the worker's client and the claim."""

    def make():
        worker = bridge.client(client.tenant, ("work",))
        client.create("held", task_options={"mark": MARK}, ingestion_task_id=MARK)
        job = worker.claim("held", worker_id=MARK, lease=600)
        checkpoint = {"checkpoint_upload": sent(worker, job, MARK.encode()), "lease_token": job["lease_token"]}
        ok(worker.put(f"{job['job_id']}/checkpoint", checkpoint))
        return worker, job

    return make


def row(bridge, job_id):
    return bridge.sql("SELECT CAST(j AS text) FROM remote_jobs j WHERE id = :id", id=job_id)[0][0]


def test_only_the_probes_are_open(operations):
    assert {path for (_, path), operation in operations.items() if "x-scopes" not in operation} == PUBLIC
    for where, operation in operations.items():
        assert operation["security"] == ([] if where[1] in PUBLIC else [{"bearer": []}, {"key": []}]), where
        if where[1] not in PUBLIC:
            assert set() < set(operation["x-scopes"]) <= set(SCOPES), where


def test_who_has_no_key_that_counts_gets_nothing_from_any_route(bridge, client, guarded, sender, held):
    _, job = held()
    expired = bridge.client(client.tenant, expires_at=datetime.now(UTC) + timedelta(hours=1))
    revoked = bridge.client(client.tenant)
    wrong = client.key[:-1] + ("x" if client.key[-1] != "x" else "y")
    for dead, end in ((expired, "expires_at"), (revoked, "revoked_at")):
        ok(dead.get(""))
        bridge.sql(f"UPDATE api_keys SET {end} = now() WHERE prefix = :p", p=keys.prefix_of(dead.key))
    for dead in (expired, revoked):
        felt = time.monotonic() + 1.5  # both processes remember a key for at most a second
        wait_until(lambda dead=dead, felt=felt: dead.get("").status_code == 401 and time.monotonic() > felt, "the end")
    before = row(bridge, job["job_id"])
    nobodies = {
        "no key": Client(bridge.url, None, bridge.files),
        "an unknown key": Client(bridge.url, "jb_00000000_" + "x" * 43, bridge.files),
        "a wrong secret": Client(bridge.url, wrong, bridge.files),
        "an expired key": expired,
        "a revoked key": revoked,
    }
    for who, nobody in nobodies.items():
        for method, path, operation in guarded:
            answer = sender.send(nobody, method, path, operation, job["job_id"], job["lease_token"])
            assert answer.status_code == 401, (who, method, path, answer.text)
            refused(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert MARK not in answer.text
            assert "X-Job-Status" not in answer.headers
            bad = nobody.request(method, path, data=b"{", headers={"Content-Type": "text/plain"})
            refused(bad, 401, "unauthorized")  # whatever else is wrong
    assert row(bridge, job["job_id"]) == before


def test_a_key_without_the_scope_gets_nothing_from_any_route(bridge, client, guarded, sender, held):
    _, job = held()
    before = row(bridge, job["job_id"])
    by_scope = {scope: bridge.client(client.tenant, (scope,)) for scope in SCOPES[:3]}
    for method, path, operation in guarded:
        for scope, narrow in by_scope.items():
            if scope in operation["x-scopes"]:
                assert sender.send(narrow, method, path, operation).status_code not in (401, 403), (scope, method, path)
                continue
            answer = sender.send(narrow, method, path, operation, job["job_id"], job["lease_token"])
            assert answer.status_code == 403, (scope, method, path, answer.text)
            assert "scope" in refused(answer, 403, "forbidden")["detail"]
            assert MARK not in answer.text
            assert "X-Job-Status" not in answer.headers
    assert row(bridge, job["job_id"]) == before


def test_another_tenant_sees_of_a_job_what_it_sees_of_none(bridge, client, guarded, sender, held):
    _, job = held()
    other = bridge.client()
    for job_id in (job["job_id"], client.create("waits", ingestion_task_id=MARK)):
        before = row(bridge, job_id)
        for method, path, operation in guarded:
            answer = sender.send(other, method, path, operation, job_id, job["lease_token"])
            assert MARK not in answer.text, (method, path)
            assert client.tenant not in answer.text, (method, path)
            if "{job_id}" in path:
                refused(answer, 404, "not_found")
                assert "X-Job-Status" not in answer.headers
                unknown = sender.send(other, method, path, operation, UNKNOWN, job["lease_token"])
                assert answer.text.replace(job_id, "") == unknown.text.replace(UNKNOWN, ""), (method, path)
            else:
                assert job_id not in answer.text, (method, path)
        assert row(bridge, job_id) == before


def of_the_holder(guarded):
    """Return the routes about a job that only its holder may use, for a key that may do nothing but work."""
    found = [
        (method, path, operation)
        for method, path, operation in guarded
        if "{job_id}" in path and "work" in operation["x-scopes"]
        if method != "GET" or path.endswith(("/download", "/checkpoint"))
    ]
    assert len(found) >= 5
    return found


def test_another_worker_can_do_nothing_to_a_job(bridge, worker, guarded, sender, held):
    _, job = held()
    before = row(bridge, job["job_id"])
    for method, path, operation in of_the_holder(guarded):
        for token in (None, job["lease_token"], "guessed"):
            answer = sender.send(worker, method, path, operation, job["job_id"], token)
            assert answer.status_code == 409, (method, path, token, answer.text)
            assert MARK not in answer.text
    assert row(bridge, job["job_id"]) == before


def test_a_worker_can_do_nothing_with_an_attempt_that_is_over(bridge, client, guarded, sender, held):
    worker, stale = held()
    ok(worker.post(f"{stale['job_id']}/release", {"lease_token": stale["lease_token"]}))
    again = worker.claim("held", worker_id="another", lease=600)
    assert again["job_id"] == stale["job_id"]
    before = row(bridge, stale["job_id"])
    for method, path, operation in of_the_holder(guarded):
        for token in (None, stale["lease_token"], ""):
            answer = sender.send(worker, method, path, operation, stale["job_id"], token)
            refused_as = 422 if token == "" and not path.endswith("/claim") else 409  # a claim takes no token
            assert answer.status_code == refused_as, (method, path, token, answer.text)
    assert row(bridge, stale["job_id"]) == before


def test_the_right_key_is_let_in_everywhere(client, guarded, sender, held):
    for method, path, operation in guarded:
        worker, job = held()
        who = worker if operation["x-scopes"] == ["work"] else client
        answer = sender.send(who, method, path, operation, job["job_id"], job["lease_token"] if who is worker else None)
        assert answer.status_code not in (400, 401, 403, 405, 415, 429, 500), (method, path, answer.text)
        if "{job_id}" in path:
            assert answer.status_code != 404, (method, path)
        assert MARK in ok(client.get(job["job_id"]))["ingestion_task_id"]
