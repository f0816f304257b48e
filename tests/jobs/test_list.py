"""GET /: the filters, and paging that neither repeats nor misses a job."""

import itertools
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest

from tests.support.client import ok, refused


def ids(answer):
    return [job["job_id"] for job in ok(answer)["jobs"]]


def pages(client, **query):
    """Return the IDs of every page, one list a page."""
    return [[job["job_id"] for job in page] for page in client.pages("", "jobs", **query)]


def test_the_newest_job_comes_first_and_fifty_are_a_page(client):
    made = [client.create() for _ in range(51)]
    answer = ok(client.get(""))
    assert [job["job_id"] for job in answer["jobs"]] == made[:0:-1]
    assert answer["next_cursor"]


def test_paging_through_ties_neither_repeats_nor_misses_a_job(bridge, client):
    made = [client.create() for _ in range(7)]
    bridge.sql("UPDATE remote_jobs SET created_at = now() WHERE tenant = :tenant", tenant=client.tenant)
    found = pages(client, limit=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted(itertools.chain(*found)) == sorted(made)


def test_the_last_page_may_be_full(client):
    made = [client.create() for _ in range(4)]
    assert pages(client, limit=2) == [made[:1:-1], made[1::-1]]


def test_a_job_that_comes_between_two_pages_moves_nothing(client):
    made = [client.create() for _ in range(4)]
    first = ok(client.get("", params={"limit": 2}))
    client.create()
    second = ok(client.get("", params={"limit": 2, "cursor": first["next_cursor"]}))
    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == made[::-1]


def test_a_page_keeps_to_the_filters(client):
    audio = [client.create("audio") for _ in range(3)]
    for _ in range(3):
        client.create("video")
    assert list(itertools.chain(*pages(client, limit=1, content_type="audio"))) == audio[::-1]


def test_each_filter_lets_through_just_what_it_names(client):
    plain = client.create("audio")
    task = client.create("audio", ingestion_task_id="a task/ü%")
    held = client.held("video", "worker one")
    failed = client.create("web", max_retries=0)
    ok(client.result(client.claim("web", "w2"), success=False))
    assert ids(client.get("", params={"status": "pending"})) == [task, plain]
    assert ids(client.get("", params={"status": "processing"})) == [held["job_id"]]
    assert ids(client.get("", params={"status": "failed"})) == [failed]
    assert ids(client.get("", params={"status": "timeout"})) == []
    assert ids(client.get("", params={"content_type": "video"})) == [held["job_id"]]
    assert ids(client.get("", params={"ingestion_task_id": "a task/ü%"})) == [task]
    assert ids(client.get("", params={"worker_id": "worker one"})) == [held["job_id"]]
    assert ids(client.get("", params={"status": "failed", "content_type": "audio"})) == []


def test_the_worker_filter_finds_nothing_where_the_list_shows_no_worker(client):
    job = client.held()
    ok(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))
    (shown,) = ok(client.get(""))["jobs"]
    assert shown["worker_id"] is None
    assert ids(client.get("", params={"worker_id": "w1"})) == []


def test_created_after_and_before_leave_their_own_moment_out(client):
    first, second, third = (ok(client.post("", client.fields())) for _ in range(3))
    after = ids(client.get("", params={"created_after": first["created_at"]}))
    assert after == [third["job_id"], second["job_id"]]
    assert ids(client.get("", params={"created_before": third["created_at"]})) == [second["job_id"], first["job_id"]]
    # Another offset is the same moment.
    moment = datetime.fromisoformat(second["created_at"])
    elsewhere = (moment + timedelta(hours=5)).replace(tzinfo=None).isoformat() + "+05:00"
    both = {"created_after": first["created_at"], "created_before": elsewhere}
    assert ids(client.get("", params=both)) == []


def test_a_list_shows_no_token_no_content_and_no_other_tenants_job(bridge, client):
    job = client.held()
    ok(client.result(job, content="the secret text"))
    for answer in (client.get(""), client.get(job["job_id"])):
        assert job["lease_token"] not in answer.text
        assert "the secret text" not in answer.text
        assert not {"lease_token", "claim_id", "content", "key_id"} & set(ok(answer))
    assert ids(bridge.client().get("")) == []


BAD_QUERIES = {
    "status": ["done", "", "PENDING"],
    "content_type": ["Audio", ""],
    "ingestion_task_id": ["", "x" * 256, "\x00"],
    "worker_id": ["\x00"],
    "created_after": ["yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59"],
    "created_before": ["2026-01-01", "9999-12-31T23:59:59-23:59"],
    "limit": ["0", "501", "1.5", "ten"],
    "cursor": ["", "x" * 201],
    "tenant": ["other"],
    "lease_token": ["x"],
}


@pytest.mark.parametrize("field", BAD_QUERIES)
def test_a_bad_query_is_refused_by_the_name_of_its_field(client, field):
    for value in BAD_QUERIES[field]:
        assert set(refused(client.get("", params={field: value}), 422, "validation")["errors"]) == {field}, value


@pytest.mark.parametrize(
    "cursor",
    [
        "made-up",
        "bnVsbA==",  # null
        "WzEsMl0=",  # [1,2]
        "WyIyMDI2LTAxLTAxIiwieCJd",  # ["2026-01-01","x"]
        "eyJhIjoxLCJiIjoyfQ==",  # {"a":1,"b":2}
        "W1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tb",
        "ü",
        "\x00",
    ],
)
def test_a_foreign_cursor_is_refused(client, cursor):
    assert set(refused(client.get(f"?cursor={quote(cursor)}"), 422, "validation")["errors"]) == {"cursor"}


def test_a_cursor_of_another_tenant_opens_nothing_of_it(bridge, client):
    for _ in range(3):
        client.create()
    cursor = ok(client.get("", params={"limit": 1}))["next_cursor"]
    other = bridge.client()
    assert ids(other.get("", params={"cursor": cursor})) == []


def test_a_moment_may_have_any_offset(client):
    job_id = client.create()
    assert ids(client.get("", params={"created_after": "2026-01-01T00:00:00+23:59"})) == [job_id]
    assert ids(client.get("", params={"created_before": "9998-12-31T23:59:59-23:59"})) == [job_id]
