"""Rules that hold over all routes, driven by the OpenAPI document: a new route cannot be forgotten."""

import re
import uuid
from urllib.parse import quote

import pytest
import requests

from tests.support.client import ok
from tests.support.waiting import wait_until

UNKNOWN = "00000000-0000-7000-8000-000000000000"


def filled(path, **names):
    return re.sub(r"\{(\w+)\}", lambda name: names.get(name[1], UNKNOWN), path)


JOB_IDS = {
    "as it was given": lambda job_id: job_id,
    "upper case": str.upper,
    "without hyphens": lambda job_id: job_id.replace("-", ""),
    "in braces": lambda job_id: f"{{{job_id}}}",
    "as a URN": lambda job_id: f"urn:uuid:{job_id}",
    "with a space": lambda job_id: f"{job_id}%20",
}


#: A body that every route about a job takes: a field that is not a route's own is ignored by it.
ANY_BODY = {"success": True, "percentage": 1, "worker_id": "w", "lines": ["x"], "checkpoint": "x"}


@pytest.mark.parametrize("form", JOB_IDS)
def test_a_job_id_that_one_route_accepts_is_accepted_by_every_other(client, operations, form):
    job_id = client.create(f"form-{uuid.uuid4().hex[:8]}")
    written = JOB_IDS[form](job_id)
    found = {}
    for (method, path), operation in operations.items():
        if "{job_id}" in path:
            body = ANY_BODY if "requestBody" in operation else None
            answer = client.request(method, filled(path, job_id=written), json=body)
            assert answer.status_code != 422, (method, path, answer.text)  # refused before the ID was looked at
            found[method, path] = answer.status_code != 404
    client.post(f"{job_id}/cancel")
    resent = client.post("/api/v1/continuations/resend", params={"job_id": written.replace("%20", " ")})
    found["POST", "/api/v1/continuations/resend"] = resent.status_code == 200
    assert set(found.values()) == {form in ("as it was given", "upper case")}, found


WORKER_IDS = ["w", "a b", "ä/ö", "x/pause", "..", "%2e", "a\nb", "two\r\nlines\u2028", "?q=1#f", "ä ?#%", "//", "/",
              "/w", "w/", "a//b", "🙂" * 255]  # fmt: skip


def test_a_worker_id_that_a_poll_accepts_can_be_paused_filtered_and_resumed(client):
    def send(worker_id, verb, body):
        quoted = quote(worker_id, safe="").replace("..", "%2e%2e")
        url = f"{client.url}/api/v1/workers/{quoted}/{verb}"
        made = client.session.prepare_request(requests.Request("POST", url, json=body))
        made.url = url  # as it was written: the library would resolve dots
        return client.session.send(made, timeout=60)

    def all_answer(code):
        return all(client.poll(worker_id=worker_id).json().get("code") == code for worker_id in WORKER_IDS)

    for worker_id in WORKER_IDS:
        ok(client.poll(worker_id=worker_id))
        assert ok(send(worker_id, "pause", {"reason": "test"}))["worker_id"] == worker_id
    wait_until(lambda: all_answer("paused"), "the pauses")
    for worker_id in WORKER_IDS:
        assert ok(client.get("", params={"worker_id": worker_id}))["jobs"] == []
        assert ok(send(worker_id, "resume", {}))["worker_id"] == worker_id
    wait_until(lambda: all_answer(None), "the end of the pauses")


def test_a_body_is_refused_where_there_is_none_and_an_empty_one_is_not(client, operations):
    without = [
        (method, path)
        for (method, path), operation in operations.items()
        if method in ("POST", "DELETE") and "413" in operation["responses"] and "requestBody" not in operation
    ]
    assert len(without) >= 6
    for method, path in without:
        where = filled(path, job_id=client.create(f"form-{uuid.uuid4().hex[:8]}"))
        params = {"content_type": "none"} if path.endswith(("remote-jobs/cancel", "remote-jobs/retry")) else None
        for body, statuses in (
            (b'{"dry_run": true}', {422}), (b"[]", {422}), (b'"x"', {422}), (b"{", {400}), (b"{}", {200, 404, 409, 422})
        ):  # fmt: skip
            headers = {"Content-Type": "application/json", "Tus-Resumable": "1.0.0"}
            answer = client.request(method, where, data=body, headers=headers, params=params)
            assert answer.status_code in statuses, (method, path, body, answer.text)
            if body == b"{}":
                assert "body" not in answer.json().get("errors", {}), (method, path)


def test_json_is_no_piece_of_an_upload(client):
    for body in (b'{"dry_run": true}', b"[]", b"{", b"{}"):
        headers = {"Content-Type": "application/json", "Tus-Resumable": "1.0.0", "Upload-Length": "100"}
        assert client.request("POST", "/api/v1/uploads", data=body, headers=headers).status_code == 415, body


@pytest.mark.parametrize("path", ["/api/v1/workers", "/api/v1/keys", "/api/v1/continuations", "/api/v1/webhooks", ""])
def test_a_list_refuses_a_parameter_that_it_does_not_know(client, path):
    answer = client.get(path, params={"worker": "misspelt"})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["worker"]


@pytest.mark.parametrize(("fields", "status"), [(9, 200), (10, 431)])
def test_a_head_has_at_most_64_kib_in_all(client, fields, status):
    answer = requests.get(f"{client.url}/healthz", headers={f"X-{n}": "y" * 7000 for n in range(fields)}, timeout=30)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "malformed"
