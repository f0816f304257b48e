"""The logs of a running bridge: one JSON object a line, with IDs and without secrets or document text."""

import json

import pytest

from bridge.logs import _as_json
from tests.support.client import ok, refused
from tests.support.waiting import LATEST, wait_until

TEXT = "the-very-private-words-of-a-document"


def lines(bridge):
    """(process, line) of every line that the bridge has logged so far."""
    return [(child.name, line) for child in bridge.stack.family.children for line in child.log.read_text().splitlines()]


def events(bridge):
    """(process, event) of every line."""
    found = []
    for process, line in lines(bridge):
        assert line.startswith("{"), f"{process} logs a line that is not a JSON object: {line[:300]}"
        found.append((process, json.loads(line)))
    return found


@pytest.fixture(scope="module")
def logged(start_bridge):
    """Return a bridge with much activity, logged at debug level, and the secrets that were used there."""
    bootstrap = "a-bootstrap-key-that-nobody-may-read"
    bridge = start_bridge(log_level="debug", continuation_task="pipeline.receive", bootstrap_key=bootstrap)
    client = bridge.client()
    job_id = client.create(task_options={"note": TEXT}, headers={"X-Request-ID": "a-request-of-ours"})
    job = client.claim()
    client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]})
    ok(client.heartbeat(job, progress=0.5, message=TEXT))
    refused(client.put(f"{job_id}/result", {"success": True, "content": TEXT + "\x00", "lease_token": "wrong"}), 409)
    ok(client.result(job, content=TEXT, metadata={"note": TEXT}))
    refused(client.get("", headers={"Authorization": "Bearer a-wrong-key-of-somebody"}), 401)
    refused(client.get("", headers={"Authorization": "Bearer jb_0a1b2c3d_the-secret-of-a-revoked-key"}), 401)
    worker = bridge.client(client.tenant, ("work",))
    refused(worker.post("", client.fields()), 403)
    kwargs = {**client.fields(), "tenant": client.tenant, "task_options": {"note": TEXT}}
    bridge.celery.send_task("bridge.enqueue_remote_job", kwargs=kwargs, queue="bridge").get(timeout=LATEST)
    with pytest.raises(Exception, match="content_type"):
        bridge.celery.send_task(
            "bridge.enqueue_remote_job", kwargs={**kwargs, "content_type": "NO"}, queue="bridge"
        ).get(timeout=LATEST)
    sent = "SELECT FROM continuations WHERE job_id = :id AND sent_at IS NOT NULL"
    wait_until(lambda: bridge.sql(sent, id=job_id), "the continuation to be sent")
    secrets = {
        "the key": client.key,
        "the bootstrap key": bootstrap,
        "a wrong key": "a-wrong-key-of-somebody",
        "a key that counts no more": "the-secret-of-a-revoked-key",
        "the lease token": job["lease_token"],
        "document text": TEXT,
    }
    return bridge, job_id, secrets


def test_every_line_of_every_process_is_one_json_object(logged):
    bridge, _, _ = logged
    for process, event in events(bridge):
        assert {"event", "level", "timestamp", "logger"} <= set(event), (process, event)
    assert {process for process, _ in events(bridge)} == {"api", "celery", "beat"}


def test_no_log_holds_a_key_a_token_or_the_text_of_a_document(logged):
    bridge, _, secrets = logged
    for process, line in lines(bridge):
        for what, secret in secrets.items():
            assert secret not in line, f"{process} logs {what}: {line[:300]}"


def test_the_way_of_a_job_can_be_followed_by_its_id(logged):
    bridge, job_id, _ = logged
    told = [event["event"] for _, event in events(bridge) if event.get("job_id") == job_id]
    assert told == ["job_created", "job_claimed", "job_completed"]
    (created,) = [event for _, event in events(bridge) if event.get("job_id") == job_id and event["to"] == "pending"]
    assert created["request_id"] == "a-request-of-ours"


def test_who_was_not_let_in_is_told_with_the_address_and_the_public_part_of_the_key(logged):
    bridge, _, _ = logged
    found = [event for _, event in events(bridge) if event["event"] == "api_key_refused"]
    assert [event["prefix"] for event in found] == [None, "jb_0a1b2c3d"]
    assert {event["address"] for event in found} == {"127.0.0.1"}
    lacking = [event for _, event in events(bridge) if event["event"] == "api_key_scope_missing"]
    assert [(event["scopes"], event["route"]) for event in lacking] == [(["submit"], "jobs.create_job")]
    worker = bridge.sql("SELECT id FROM api_keys WHERE scopes = ARRAY['work']")[0].id
    assert lacking[0]["key_id"] == str(worker)


def test_nothing_went_wrong_on_an_ordinary_way(logged):
    bridge, _, _ = logged
    assert [event for _, event in events(bridge) if event["level"] in ("error", "critical")] == []


def test_the_shared_bridge_has_logged_no_unexpected_error(bridge):
    """What the other tests of this session did to it, too: nothing that a client sends is our fault."""
    found = [line for process, line in lines(bridge) if process == "api" and '"unexpected_error"' in line]
    assert found == []


@pytest.mark.parametrize("value", [2**70, "\ud800", {1: 2**64}])
def test_what_the_fast_writer_cannot_write_is_logged_all_the_same(value):
    text = _as_json({"event": "x", "value": value}, default=str)
    assert "\n" not in text
    assert json.loads(text)["value"] == (value if not isinstance(value, dict) else {"1": 2**64})
