"""POST /: what creates a job, what is refused, and the Idempotency-Key."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.client import ok, refused


def moment(seconds: float = 3600) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_job_that_names_only_what_is_required_gets_the_defaults(client):
    fields = client.fields("document")
    job = client.job(ok(client.post("", fields))["job_id"])
    assert {name: job[name] for name in fields} == fields
    assert job["task_options"] == {}
    assert (job["priority"], job["max_retries"], job["retry_count"], job["attempt"]) == ("normal", 3, 0, 0)
    assert (job["timeout_seconds"], job["queue_timeout_seconds"]) == (900, 86400)
    assert job["status"] == "pending"
    waits = datetime.fromisoformat(job["timeout_at"]) - datetime.fromisoformat(job["available_at"])
    assert waits == timedelta(seconds=86400)
    assert datetime.fromisoformat(job["created_at"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("content_type", "seconds"),
    [("audio", 3600), ("video", 7200), ("image", 300), ("web", 600), ("youtube", 3600), ("x-other.1_a", 3600)],
)
def test_the_deadline_has_a_default_for_each_content_type(client, content_type, seconds):
    assert client.job(client.create(content_type))["timeout_seconds"] == seconds


def test_what_a_create_names_is_what_the_job_has(client):
    at = moment()
    named: dict[str, Any] = {
        "task_options": {"b": [1, 2.5, None, True], "a": {"ü": "\u2028"}, "large": 2**53},
        "priority": "high",
        "max_retries": 0,
        "timeout_seconds": 604800,
        "queue_timeout_seconds": 1,
    }
    job = client.job(client.create("a" * 50, **named, available_at=at))
    assert {name: job[name] for name in named} == named
    assert list(job["task_options"]) == ["b", "a", "large"]
    assert datetime.fromisoformat(job["available_at"]) == datetime.fromisoformat(at)


@pytest.mark.parametrize("field", ["source_file_path", "content_type", "ingestion_task_id"])
def test_each_required_field_is_missed_by_name(client, field):
    fields = client.fields()
    del fields[field]
    assert set(refused(client.post("", fields), 422, "validation")["errors"]) == {field}


BAD: dict[str, list[Any]] = {
    "content_type": ["", "a" * 51, "Audio", "audio\n", "au:dio", 7, None],
    "ingestion_task_id": ["", "x" * 256, 12, None, "a\x00b"],
    "source_file_path": ["", ["/"], "/a\x00b"],
    "task_options": [None, [], "{}", {"a": "\x00"}, {"a\x00": 1}, {"a": [{"b": 2**53 + 1}]}],
    "priority": ["urgent", 1, "HIGH"],
    "max_retries": [-1, 101, "3", 1.0, True],
    "timeout_seconds": [0, 604801, "60"],
    "queue_timeout_seconds": [0, 2592001, 1.5],
    "available_at": [
        "tomorrow",
        "2030-01-01T00:00:00",
        1900000000,
        "9999-12-31T23:59:59+00:00",
        "9999-12-31T23:59:59-23:59",
    ],
}


@pytest.mark.parametrize("field", BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_field(client, field):
    for value in BAD[field]:
        problem = refused(client.post("", {**client.fields(), field: value}), 422, "validation")
        assert set(problem["errors"]) == {field}, value
        assert problem["errors"][field]
    assert ok(client.get(""))["jobs"] == []


def test_every_bad_field_is_named_at_once(client):
    body = {**client.fields(), "max_retries": "3", "priority": "x", "surprise": 1}
    assert set(refused(client.post("", body), 422)["errors"]) == {"max_retries", "priority", "surprise"}


def test_a_source_file_must_be_a_regular_file_under_a_root_with_links_resolved(client, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = client.files / f"link-{client.tenant}"
    os.symlink(secret, link)
    folder = client.files / f"folder-{client.tenant}"
    folder.mkdir()
    pipe = client.files / f"pipe-{client.tenant}"
    os.mkfifo(pipe)
    inside = client.source()
    for path in (
        "relative.bin",
        str(secret),
        str(link),
        str(folder),
        str(pipe),
        f"{client.files}/../{client.files.name}-other/x",
        f"{client.files}/../../../../../../etc/passwd",
        f"{client.files}/missing.bin",
        f"{client.files}/{'x' * 3000}",
        inside + "/x",
        "../x",
        "/etc/passwd",
        "/proc/self/environ",
        "/" + "a/" * 1500,
        "x" * 4097,
    ):
        problem = refused(client.post("", client.fields(source_file_path=path)), 422, "validation")
        assert set(problem["errors"]) == {"source_file_path"}, path
        assert str(tmp_path) not in problem["detail"]
    own = client.files / f"own-{client.tenant}"
    os.symlink(inside, own)
    assert ok(client.post("", client.fields(source_file_path=str(own))))["status"] == "pending"


def test_a_job_for_later_is_not_claimed_before_its_time_and_is_then(bridge, client):
    job_id = client.create(available_at=moment())
    assert ok(client.poll())["jobs"] == []
    bridge.sql("UPDATE remote_jobs SET available_at = now(), queued_at = now() WHERE id = :id", id=job_id)
    assert client.claim()["job_id"] == job_id


def test_the_same_idempotency_key_with_the_same_body_gives_the_first_answer_again(client):
    fields = client.fields(task_options={"a": 1, "b": 2})
    headers = {"Idempotency-Key": "k" * 255}
    first = ok(client.post("", fields, headers=headers))
    client.result(client.claim())
    other_order = dict(reversed({**fields, "task_options": {"b": 2, "a": 1}}.items()))
    assert ok(client.post("", other_order, headers=headers)) == first
    os.unlink(fields["source_file_path"])  # the key is looked up before anything else is checked
    assert ok(client.post("", fields, headers=headers)) == first
    assert len(ok(client.get(""))["jobs"]) == 1


def test_the_same_idempotency_key_with_another_body_is_refused(client):
    headers = {"Idempotency-Key": "mine"}
    fields = client.fields()
    ok(client.post("", fields, headers=headers))
    for other in ({"max_retries": 4}, {"task_options": {"x": 1}}, {"source_file_path": "/nowhere"}):
        problem = refused(client.post("", {**fields, **other}, headers=headers), 422, "idempotency_mismatch")
        assert set(problem["errors"]) == {"Idempotency-Key"}


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_idempotency_key_has_1_to_255_characters(client, key):
    problem = refused(client.post("", client.fields(), headers={"Idempotency-Key": key}), 422, "validation")
    assert set(problem["errors"]) == {"Idempotency-Key"}


def test_an_idempotency_key_belongs_to_its_tenant(bridge, client):
    fields, headers = client.fields(), {"Idempotency-Key": "shared"}
    mine = ok(client.post("", fields, headers=headers))
    theirs = ok(bridge.client().post("", fields, headers=headers))
    assert mine["job_id"] != theirs["job_id"]


def test_a_create_without_a_key_makes_a_job_each_time(client):
    fields = client.fields()
    assert ok(client.post("", fields))["job_id"] != ok(client.post("", fields))["job_id"]
