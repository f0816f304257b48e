"""Answers have a bound that holds whatever was stored: rows of earlier versions, made-up names, long histories."""

from typing import Any

import pytest

from bridge.jobs.read import LONGEST_MESSAGE, MOST_SHOWN
from tests.http.test_every_answer_is_bounded import MEGABYTE, history
from tests.support.client import ok


@pytest.fixture(scope="module")
def burdened(bridge):
    """Return a client, and its job with everything that an earlier version would have kept, in texts of megabytes."""
    client = bridge.client()
    job = client.held("burdened")
    ok(client.result(job, success=False, retryable=False))
    bridge.sql(
        "UPDATE remote_jobs SET error_message = repeat('ü💥', 2000000), attempt = 300 WHERE id = :id", id=job["job_id"]
    )
    history(bridge, job["job_id"], "'é'")
    return client, job["job_id"]


@pytest.mark.parametrize("path", ["{id}", "{id}/status", "{id}/explain", "?limit=500", "?status=failed", "{id}/result"])
def test_an_answer_is_small_whatever_was_stored(burdened, path):
    client, job_id = burdened
    answer = client.get(path.format(id=job_id))
    assert answer.status_code in (200, 409)
    assert len(answer.content) < MEGABYTE


def test_a_refused_call_about_the_job_is_told_in_little(burdened):
    client, job_id = burdened
    for call in (client.post(f"{job_id}/cancel"), client.put(f"{job_id}/result", {"success": True})):
        assert call.status_code == 409
        assert len(call.content) < 20_000


def whole(client, job_id, name):
    """Return a list of a job, of all its pages."""
    found: list[Any] = []
    before: dict[str, Any] = {}
    while True:
        job = ok(client.get(job_id, params=before))
        assert len(job[name]) <= MOST_SHOWN
        found = job[name] + found
        if job[f"{name}_before"] is None:
            return found
        before = {f"{name}_before": job[f"{name}_before"]}


def test_a_long_history_is_paged_through_without_a_gap(burdened):
    client, job_id = burdened
    assert [row["attempt"] for row in whole(client, job_id, "attempts")] == list(range(1, 301))
    assert len(whole(client, job_id, "requests")) == 500


def test_what_is_kept_of_an_error_message_is_bounded_and_the_same_result_still_counts_as_the_same(bridge, client):
    job = client.held("wordy")
    for _ in range(2):
        ok(client.result(job, success=False, retryable=False, error_message="é" * 2_000_000))
    row = bridge.sql("SELECT error_message FROM remote_jobs WHERE id = :id", id=job["job_id"])[0]
    assert len(row.error_message) == LONGEST_MESSAGE
    assert "2000000 characters" in row.error_message
    why = bridge.sql("SELECT why FROM job_attempts WHERE job_id = :id", id=job["job_id"])[0].why
    assert len(why) == LONGEST_MESSAGE


def test_a_page_weighs_what_is_sent_and_not_what_compression_makes_of_it(client):
    for _ in range(6):
        client.create(task_options={"x": "a" * 700_000})
    page = client.get("", params={"limit": 100})
    assert len(page.content) < 2 * MEGABYTE
    assert len(ok(page)["jobs"]) == 2


def test_workers_whose_names_are_made_up_come_in_pages(bridge, client):
    bridge.sql(
        "INSERT INTO worker_pauses (tenant, worker_id, by, reason, paused_at)"
        " SELECT :tenant, repeat('w', 250) || n, 'operator', repeat('r', 500), now()"
        " FROM generate_series(1000, 3999) n",
        tenant=client.tenant,
    )
    names, cursor = [], None
    while True:
        answer = client.get("/api/v1/workers", params={"limit": 200, "cursor": cursor})
        assert len(answer.content) < MEGABYTE
        page = ok(answer)
        assert page["count"] == 3000
        names += [one["worker_id"] for one in page["workers"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(set(names)) == len(names) == 3000
