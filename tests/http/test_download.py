"""GET /{id}/download: the file, ranges of it, who may have it and for whom it is a sign of life."""

import os

import pytest
import urllib3

from tests.support.client import ok, refused
from tests.support.cut_off import no_connections
from tests.support.waiting import wait_until

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def source(client):
    return client.source(CONTENT)


@pytest.fixture
def job(client, source):
    return client.held(source_file_path=source)


def test_the_holder_gets_the_whole_file_and_acknowledges_the_claim(client, job):
    answer = client.download(job)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job["source_name"]}"'
    assert answer.headers["X-Job-Status"] == "processing"
    assert answer.headers["ETag"]
    whole = client.job(job["job_id"])
    assert whole["acknowledged_at"] is not None
    assert whole["lease_expires_at"] != job["lease_expires_at"]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=102000-", 102000, 102399),
        ("bytes=-5", 102395, 102399),
        ("bytes=-999999", 0, 102399),
        ("bytes=102300-999999", 102300, 102399),
        ("BYTES=102398-99999999999999999999", 102398, 102399),
    ],
)
def test_a_range_gets_a_206_with_just_its_bytes(client, job, asked, first, last):
    answer = client.download(job, Range=asked)
    assert answer.status_code == 206
    assert answer.content == CONTENT[first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert answer.headers["Content-Length"] == str(last - first + 1)


@pytest.mark.parametrize(
    "asked", ["bytes=102400-", "bytes=102400-102410", "bytes=999999-9999999", "bytes=-0", "bytes=" + "9" * 21 + "-"]
)
def test_a_range_outside_the_file_gets_a_416_that_names_the_length(client, job, asked):
    answer = client.download(job, Range=asked)
    refused(answer, 416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "asked",
    ["items=0-5", "bytes=", "bytes=a-b", "bytes=5-2", "bytes 0-5", "bytes=0-1,5-6", "bytes=--5", "", "bytes=-", "bytes",
     "bytes=0x0-1", "=", "bytes=0-1-2", "bytes=" + ",".join(f"{i}-" for i in range(200)), "bytes=" + "9" * 4000 + "-"],
)  # fmt: skip
def test_a_range_that_cannot_be_understood_is_ignored(client, job, asked):
    answer = client.download(job, Range=asked)
    assert answer.status_code == 200
    assert answer.content == CONTENT


def test_an_if_range_of_the_same_file_resumes_and_of_another_starts_anew(client, job, source):
    whole = client.download(job).headers
    tag = whole["ETag"]
    for same in (tag, whole["Last-Modified"]):
        resumed = client.download(job, Range="bytes=1000-", If_Range=same)
        assert (resumed.status_code, resumed.content) == (206, CONTENT[1000:])
    for stale in ('"other"', f"W/{tag}", "Mon, 01 Jan 2001 00:00:00 GMT", "nonsense", '"'):
        assert client.download(job, Range="bytes=5-", If_Range=stale).status_code == 200
    os.utime(source, ns=(1, 1))
    assert client.download(job, Range="bytes=5-", If_Range=tag).status_code == 200
    with open(source, "wb") as file:
        file.write(b"another")
    anew = client.download(job, Range="bytes=1000-", If_Range=tag)
    assert (anew.status_code, anew.content) == (200, b"another")
    assert anew.headers["ETag"] != tag


def test_what_the_client_has_already_is_not_sent_again(client, job):
    tag = client.download(job).headers["ETag"]
    answer = client.download(job, If_None_Match=tag)
    assert (answer.status_code, answer.content) == (304, b"")


def test_an_empty_file_is_an_empty_200(client):
    answer = client.download(client.held(source_file_path=client.source(b"")))
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")


def test_head_tells_the_length_and_is_no_sign_of_life(client, job):
    answer = client.download(job, "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert client.job(job["job_id"])["acknowledged_at"] is None


def test_a_readers_download_is_no_sign_of_life(bridge, client, job):
    reader = bridge.client(client.tenant, ("read",))
    assert reader.get(job["source_file_url"]).content == CONTENT
    assert client.job(job["job_id"])["acknowledged_at"] is None


def test_without_a_lease_the_key_that_claimed_is_the_holder(client, worker, source):
    client.create(source_file_path=source)
    job = worker.claim(lease=None)
    assert worker.get(job["source_file_url"]).content == CONTENT
    assert client.job(job["job_id"])["acknowledged_at"] is not None


def test_a_worker_that_is_not_the_holder_gets_nothing(bridge, client, worker, source):
    other = bridge.client(client.tenant, ("work",))
    client.create(source_file_path=source)
    job = worker.claim(lease=60)
    refused(other.get(job["source_file_url"]), 409, "lease_lost")
    refused(other.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]}), 409, "lease_lost")
    refused(worker.get(job["source_file_url"]), 409, "lease_lost")  # the claim named a lease, the call no token
    refused(worker.get(job["source_file_url"], headers={"X-Lease-Token": "x" * 43}), 409, "lease_lost")
    assert client.job(job["job_id"])["acknowledged_at"] is None


def test_a_token_that_is_sent_is_checked_even_where_the_key_may_read(client, job):
    refused(client.get(job["source_file_url"], headers={"X-Lease-Token": "wrong"}), 409, "lease_lost")


@pytest.mark.parametrize("token", ["", "x" * 101])
def test_a_token_has_1_to_100_characters(client, job, token):
    problem = refused(client.get(job["source_file_url"], headers={"X-Lease-Token": token}), 422, "validation")
    assert set(problem["errors"]) == {"X-Lease-Token"}


def test_only_a_job_in_processing_state_can_be_downloaded(client, source):
    job_id = client.create(source_file_path=source)
    answer = client.get(f"{job_id}/download")
    assert "not in processing state" in refused(answer, 403)["detail"]
    assert answer.headers["X-Job-Status"] == "pending"
    job = client.claim()
    ok(client.result(job))
    answer = client.download(job)
    assert "not in processing state" in refused(answer, 403)["detail"]
    assert answer.headers["X-Job-Status"] == "completed"


def test_a_file_that_is_gone_is_a_404_that_names_no_path(client, job, source):
    os.unlink(source)
    problem = refused(client.download(job), 404, "not_found")
    assert "not found" in problem["detail"]
    assert str(client.files) not in problem["detail"]


def test_a_link_within_the_root_is_served(client, source):
    link = client.files / f"good-link-{client.tenant}"
    os.symlink(source, link)
    assert client.download(client.held(source_file_path=str(link))).content == CONTENT


def test_another_tenants_job_is_a_404(bridge, job):
    refused(bridge.client().get(job["source_file_url"]), 404, "not_found")


@pytest.mark.slow
def test_a_download_outlives_postgresqls_absence_and_renews_the_lease_after_it(own_bridge):
    bridge = own_bridge(celery=False, beat=False)
    client = bridge.client()
    path = client.source(b"")
    os.truncate(path, 128 * 2**20)
    job = client.held(source_file_path=path, lease=10)
    log = bridge.settings.data_dir / "logs" / "api.log"
    with client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]}, stream=True) as answer:

        def unnoted():
            return answer.raw.read(2**16) and "download_not_recorded" in log.read_text()

        with no_connections(bridge.engine.url):
            wait_until(unnoted, "a sign of life that could not be noted")
        seen = "SELECT lease_expires_at FROM remote_jobs WHERE id = :id"
        bridge.engine.dispose()
        first = bridge.sql(seen, id=job["job_id"])

        def renewed():
            return answer.raw.read(2**16) and bridge.sql(seen, id=job["job_id"]) > first

        wait_until(renewed, "the lease to be renewed")


@pytest.mark.slow
def test_bytes_that_go_out_are_signs_of_life_and_end_with_the_holders_hold(client):
    path = client.source(b"")
    os.truncate(path, 128 * 2**20)
    job = client.held(source_file_path=path, lease=10)
    headers = {"X-Lease-Token": job["lease_token"]}
    with client.get(job["source_file_url"], headers=headers, stream=True) as answer:
        first = client.job(job["job_id"])["lease_expires_at"]

        def renewed():
            return answer.raw.read(2**16) and client.job(job["job_id"])["lease_expires_at"] > first

        wait_until(renewed, "the lease to be renewed by what is read")
        ok(client.post(f"{job['job_id']}/cancel"))
        with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
            wait_until(lambda: not answer.raw.read(2**16), "the download to break off")
