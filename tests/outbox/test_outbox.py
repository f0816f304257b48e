"""Outcomes that do not get through: seen as failing, listed, and sent again by an operator over HTTP."""

import re
import uuid
from datetime import UTC, datetime

import pytest

from bridge.outbox.pipeline_queue import PipelineQueue, sentence
from tests.outbox.test_continuation_again import finished
from tests.support.client import ok, refused
from tests.support.waiting import wait_until

LIST, RESEND = "/api/v1/continuations", "/api/v1/continuations/resend"


def fails(bridge, job_id):
    """As if the broker had refused this outcome for long."""
    sent = "SELECT 1 FROM continuations WHERE job_id = :id AND sent_at IS NOT NULL"
    wait_until(lambda: bridge.sql(sent, id=job_id), "the outcome to be sent")
    bridge.sql(
        "UPDATE continuations SET sent_at = NULL, tries = 7, last_error = 'OutOfMemoryError',"
        " next_at = now() + interval '1 hour' WHERE job_id = :id",
        id=job_id,
    )


def test_a_failing_outcome_is_listed_counted_and_sent_again(bridge, client):
    job_id = finished(client)
    fails(bridge, job_id)
    (row,) = ok(client.get(LIST))["continuations"]
    told = {"job_id": job_id, "n": 1, "status": "completed", "state": "failing", "tries": 7, "sent_at": None}
    assert {**row, **told, "last_error": "OutOfMemoryError"} == row
    assert datetime.fromisoformat(row["next_at"]) > datetime.fromisoformat(row["created_at"])
    assert row["confirmed_at"] is None
    assert ok(client.get(LIST, params={"state": "failing"}))["continuations"] == ok(client.get(LIST))["continuations"]
    assert ok(client.get(LIST, params={"state": "waiting"}))["continuations"] == []
    counted = re.search(r"^bridge_continuations_failing (\S+)$", client.get("/metrics").text, re.M)
    assert counted is not None
    assert float(counted.group(1)) >= 1
    assert ok(client.post(RESEND, params={"state": "failing"})) == {"changed": 1}
    sent = wait_until(lambda: ok(client.get(LIST, params={"state": "sent"}))["continuations"], "it to be sent again")
    assert [(one["job_id"], one["tries"], one["last_error"]) for one in sent] == [(job_id, 1, None)]
    assert ok(client.get(LIST))["continuations"] == []


def test_an_outcome_is_sent_again_by_the_jobs_name_and_only_of_the_own_tenant(bridge, client):
    job_id = finished(client)
    fails(bridge, job_id)
    other = bridge.client()
    listed = ok(other.get(LIST))
    assert (listed["continuations"], listed["next_cursor"]) == ([], None)
    refused(other.post(RESEND, params={"job_id": job_id}), 404, "not_found")
    assert ok(other.post(RESEND, params={"state": "failing"})) == {"changed": 0}
    refused(client.post(RESEND, params={"job_id": job_id, "n": 2}), 404, "not_found")
    assert ok(client.post(RESEND, params={"job_id": job_id, "n": 1})) == {"changed": 1}
    wait_until(lambda: ok(client.get(LIST, params={"state": "sent"}))["continuations"], "it to be sent again")


def test_the_list_comes_in_pages(bridge, client):
    jobs = [finished(client) for _ in range(3)]
    for job_id in jobs:
        fails(bridge, job_id)
    first = ok(client.get(LIST, params={"limit": 2}))
    rest = ok(client.get(LIST, params={"limit": 2, "cursor": first["next_cursor"]}))
    assert [row["job_id"] for row in first["continuations"] + rest["continuations"]] == jobs[::-1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "job_id"),
        ({"n": 1}, "job_id"),
        ({"state": "failing", "n": 1}, "job_id"),
        ({"state": "failing", "job_id": str(uuid.UUID(int=1))}, "job_id"),
        ({"state": "sent"}, "state"),
        ({"job_id": "x"}, "job_id"),
        ({"job_id": str(uuid.UUID(int=1)), "n": -1}, "n"),
        ({"states": "failing"}, "states"),
    ],
)
def test_what_shall_be_sent_again_must_be_named_in_one_way(client, query, field):
    assert field in refused(client.post(RESEND, params=query), 422, "validation")["errors"]


@pytest.mark.parametrize(
    "query", [{"state": "gone"}, {"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"status": "failing"}]
)
def test_a_bad_query_of_the_list_is_refused_by_name(client, query):
    assert set(refused(client.get(LIST, params=query), 422, "validation")["errors"]) == set(query)


@pytest.mark.parametrize(("messages", "untouched", "ours", "theirs"), [
    (0, 0.0, None, None), (1, 5.0, "1 message waits in the pipeline's queue `q`; it is consumed.", None),
    (3, 90.0, "3 messages wait in the pipeline's queue `q` and nothing consumes it: none has been taken for 90 s.",
     "The pipeline takes no outcomes at the moment."),
])  # fmt: skip
def test_what_keeps_outcomes_back_is_said_and_the_queue_only_to_its_owner(messages, untouched, ours, theirs):
    seen = PipelineQueue("q", messages, untouched, datetime.now(UTC))
    assert (sentence(seen, "default"), sentence(seen, "another")) == (ours, theirs)
