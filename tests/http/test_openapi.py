"""The OpenAPI document and its page: valid, complete, and true to what each route answers."""

import re
from html.parser import HTMLParser
from itertools import product

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from api.http.openapi import HEADERS
from tests.http.test_http_rules import ANY_BODY, UNKNOWN
from tests.support.client import Client, ok, refused

PUBLIC = {"/health", "/healthz", "/readyz", "/metrics"}
BASE = "/api/v1/remote-jobs"


def test_the_document_is_valid(document):
    validate(document)
    assert document["openapi"].startswith("3.")


def test_every_operation_has_a_summary_and_answers_with_a_schema(operations):
    for where, operation in operations.items():
        assert operation.get("summary"), where
        assert any(re.fullmatch("2..", status) for status in operation["responses"]), where
        for status, answer in operation["responses"].items():
            assert answer.get("description"), (where, status)
            if status not in ("204", "206", "304", "307"):
                assert answer.get("content"), (where, status)
        without = ("/cancel", "/retry", "/resend", "/resume", "/evict", "/webhook-secret")
        if where[1].startswith("/api/v1/uploads") and where[0] in ("POST", "PATCH"):
            assert operation["requestBody"]["content"]["application/offset+octet-stream"]["schema"], where
        elif where[0] in ("POST", "PUT") and not where[1].endswith(without):
            assert operation["requestBody"]["content"]["application/json"]["schema"], where


def test_every_operation_has_an_id_for_generated_clients(operations):
    ids = [operation.get("operationId") for operation in operations.values()]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_every_schema_is_used(document):
    text = str(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}'" in text, name


def test_every_error_is_a_problem_with_its_schema(document, operations):
    for where, operation in operations.items():
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert set(answer["content"]) == {"application/problem+json"}, (where, status)
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (where, status)


def drive(client, bridge):
    """Every way to an error that a client has, on every route: (method, path template, answer)."""
    held, failed, done = client.held(), client.held("video", max_retries=0), client.held("web")
    ok(client.result(failed, success=False))
    ok(client.result(done))
    pending = client.create("image")
    nobody = Client(bridge.url, None, bridge.files)
    other = bridge.client(client.tenant, ("work",))
    jobs = [UNKNOWN, "nonsense", pending, held["job_id"], failed["job_id"], done["job_id"]]
    bodies = [
        None,
        b"{",
        b"[]",
        b'{"success": 5, "percentage": "x", "lease_token": 5, "jobs": 5}',
        b'{"success": true}',
    ]
    large = b'{"content": "' + b"x" * bridge.settings.max_body_bytes + b'"}'

    def drive_one(method, path):
        paths = [path.replace("{job_id}", job) for job in jobs] if "{job_id}" in path else [path]
        body = None if method == "GET" else ANY_BODY
        for concrete in paths:
            yield client.request(method, concrete)
            yield other.request(method, concrete, json=body)
            for headers in ({"X-Lease-Token": "wrong"}, {"Range": "bytes=99-"}):
                yield client.request(method, concrete, json=body, headers=headers)
        yield nobody.request(method, paths[-1])
        for asked in ("?limit=0&wait=x", "?limit=1&limit=2&wait=1&wait=2&worker_id=w&content_types=a"):
            yield client.request(method, paths[-1] + asked)
        yield client.request(method, paths[-1], params={"limit": "x", "cursor": "?", "unknown": "1", "wait": "-1"})
        for headers in ({"X-Lease-Token": ""}, {"Idempotency-Key": ""}):
            yield client.request(method, paths[-1], json=body, headers=headers)
        if method != "GET":
            for place, sent in product((paths[0], paths[-1]), bodies):
                yield client.request(method, place, data=sent, headers={"Content-Type": "application/json"})
            yield client.request(method, paths[-1], data=b"{}", headers={"Content-Type": "text/plain"})
            yield client.request(method, paths[-1], data=large, headers={"Content-Type": "application/json"})

    return drive_one


def test_every_error_that_a_route_gives_is_declared_and_so_is_the_shape_of_each_answer(
    own_bridge, operations, document
):
    bridge = own_bridge(celery=False, beat=False, max_body_bytes="4096")
    client = bridge.client()
    drive_one = drive(client, bridge)
    seen: dict[tuple[str, str], set[str]] = {}
    job_status = dict.fromkeys(operations, False)
    for (method, path), operation in operations.items():
        for answer in drive_one(method, path):
            status = str(answer.status_code)
            seen.setdefault((method, path), set()).add(status)
            assert status in operation["responses"], (method, path, status, answer.text[:300])
            headers = operation["responses"][status]["headers"]
            assert {name for name in HEADERS if name in answer.headers} <= set(headers), (method, path, status)
            assert "X-Request-ID" in answer.headers, (method, path, status)
            job_status[method, path] |= "X-Job-Status" in answer.headers
            described = operation["responses"][status].get("content", {})
            media = answer.headers.get("Content-Type", "").partition(";")[0]
            assert media in described or not answer.content, (method, path, status, media)
            if media.endswith("json"):
                conforms(document, described[media]["schema"], answer.json())
            if answer.status_code >= 400:
                is_a_problem_alone(answer)
    for (method, path), told in job_status.items():
        declared = any("X-Job-Status" in answer["headers"] for answer in operations[method, path]["responses"].values())
        assert told == declared, {w: t for w, t in job_status.items() if "{job_id}" in w[1]}
    # The drive is worth something: it has met these everywhere they can be met.
    for (method, path), met in seen.items():
        if path in PUBLIC:
            continue
        assert met >= {"401", "403" if "work" not in operations[method, path]["x-scopes"] else "401"}, (method, path)
        if "{job_id}" in path:
            assert "404" in met, (method, path)
        if "application/json" in operations[method, path].get("requestBody", {}).get("content", {}):
            assert met >= {"400", "413", "415", "422"}, (method, path, met)


def is_a_problem_alone(answer):
    """Fails where a refusal has members of its own, or headers that tell of a success's content."""
    problem = refused(answer, answer.status_code)
    assert set(problem) <= {"type", "title", "status", "detail", "code", "errors"}, problem
    assert ("errors" in problem) == ((answer.status_code, problem["code"]) == (422, "validation")), problem
    assert not {"ETag", "Last-Modified", "Content-Disposition", "Accept-Ranges", "Location"} & set(answer.headers)


def conforms(document, schema, body):
    """Fails where an answer is not what the document says."""
    whole = {**schema, "components": document["components"]}
    errors = [f"{list(error.path)}: {error.message}" for error in OAS31Validator(whole).iter_errors(body)]
    assert not errors, errors


def test_the_answers_are_what_the_document_says(client, operations, document):
    def check(method, path, answer):
        schema = operations[method, path]["responses"]["200"]["content"]["application/json"]["schema"]
        conforms(document, schema, ok(answer))

    check("POST", BASE, client.post("", client.fields(task_options={"a": [1]})))
    check("GET", f"{BASE}/poll", client.poll("none"))
    claimed = client.poll(lease=60)
    check("GET", f"{BASE}/poll", claimed)
    job = claimed.json()["jobs"][0]
    one = f"{BASE}/{{job_id}}"
    check("POST", f"{one}/heartbeat", client.heartbeat(job, progress=0.5, message="half"))
    token = {"X-Lease-Token": job["lease_token"]}
    check("PUT", f"{one}/progress", client.put(f"{job['job_id']}/progress", {"percentage": 60}, headers=token))
    for path, suffix in ((f"{one}/status", "/status"), (one, "")):
        check("GET", path, client.get(job["job_id"] + suffix))
    check("PUT", f"{one}/result", client.result(job, success=False, error_message="no"))
    check("POST", f"{one}/cancel", client.post(f"{job['job_id']}/cancel"))
    check("POST", f"{one}/retry", client.post(f"{job['job_id']}/retry"))
    again = client.claim(worker_id="w2")
    check("POST", f"{one}/release", client.post(f"{again['job_id']}/release", {"lease_token": again["lease_token"]}))
    named = client.post(f"{again['job_id']}/claim", {"worker_id": "w3"})
    check("POST", f"{one}/claim", named)
    last = named.json()
    ok(client.result(last, metadata={"a": None}))
    check("GET", f"{one}/result", client.get(f"{last['job_id']}/result"))
    check("GET", one, client.get(last["job_id"]))
    check("GET", BASE, client.get(""))
    for path in ("/health", "/healthz", "/readyz"):
        check("GET", path, client.get(path))


class Assets(HTMLParser):
    """What a page loads."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag in ("script", "img", "link", "iframe"):
            self.found += [named[name] for name in ("src", "href") if named.get(name)]


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_interactive_page_and_all_it_loads_comes_from_us(bridge, path):
    browser = Client(bridge.url, None, bridge.files)
    page = browser.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assets = Assets()
    assets.feed(page.text)
    assert assets.found
    texts = [page.text]
    for asset in assets.found:
        assert not re.match(r"(https?:)?//", asset), asset
        answer = browser.get(asset if asset.startswith("/") else f"/docs/{asset.removeprefix('./')}")
        assert answer.status_code == 200, asset
        if asset.endswith(".css"):
            texts.append(answer.text)
    foreign = [
        found for text in texts for found in re.findall(r"(?:src=|href=|url\()[\"']?(?:https?:)?//[^\"')]+", text)
    ]
    assert foreign == []
    assert "/openapi.json" in page.text
