"""Sources in buckets: through a create, a claim and a download, from SeaweedFS and from servers that only pretend."""

import base64
import os
import re

import pytest
import requests

from bridge.errors import Invalid, NotFound, Unavailable
from bridge.jobs import bucket_sources
from bridge.jobs.bucket_sources import look_at_object, object_pieces
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields
from bridge.settings import SettingsError, load_settings
from tests.support.client import ok, refused
from tests.support.command import jobbridge
from tests.support.scripted_answers import answer, scripted
from tests.support.seaweed import ACCESS, watched_bucket

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
FILE = os.urandom(3_000_000)
KEY = "in/some scans/Bericht ü 100%.pdf"
URL = f"s3://files/{KEY}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """SeaweedFS behind a fault proxy, in the environment, with an object."""
    with watched_bucket(tmp_path_factory.mktemp("bucket") / "seaweed") as proxy:
        put(KEY, FILE)
        yield proxy


def put(key: str, content: bytes) -> None:
    import obstore

    obstore.put(obstore.store.from_url("s3://files", client_options={"allow_http": True}), key, content)


@pytest.fixture(scope="module")
def bridge(start_bridge, store):
    bridge = start_bridge(
        celery=False, beat=False, api_processes="1", upload_max_bytes="3000000", store="s3://files/in/uploads",
        source_allow="https://files.example.org, s3://files/in, s3://nosuch",
        source_worker_fetch="on",
    )  # fmt: skip
    yield bridge
    bridge.stack.stop()


@pytest.fixture
def client(bridge):
    return bridge.client()


def body(url: str) -> dict[str, str]:
    return {"source_url": url, "content_type": "doc", "ingestion_task_id": "x"}


def taken(client, url: str):
    job_id = ok(client.post("", body(url)))["job_id"]
    job = client.claim("doc")
    assert job["job_id"] == job_id
    return job, {"X-Lease-Token": job["lease_token"]}


def test_a_worker_gets_an_object_as_it_gets_a_file(client):
    job, token = taken(client, URL)
    told = (job["source_name"], job["source_size"], job["source_media_type"])
    assert told == ("Bericht ü 100%.pdf", None, "application/pdf")
    path = job["source_file_url"]
    whole = client.get(path, headers=token)
    assert (whole.status_code, whole.content) == (200, FILE)
    assert "filename*=UTF-8''Bericht%20%C3%BC%20100%25.pdf" in whole.headers["Content-Disposition"]
    etag = whole.headers["ETag"]
    part = client.get(path, headers={**token, "Range": "bytes=1500000-2700000", "If-Range": etag})
    assert (part.status_code, part.content) == (206, FILE[1500000:2700001])
    assert part.headers["Content-Range"] == f"bytes 1500000-2700000/{len(FILE)}"
    assert client.get(path, headers={**token, "Range": "bytes=5-", "If-Range": '"v0"'}).status_code == 200
    assert client.get(path, headers={**token, "If-None-Match": etag}).status_code == 304
    refused(client.get(path, headers={**token, "Range": "bytes=3000000-"}), 416)
    head = client.request("HEAD", path, headers=token)
    assert (head.headers["Content-Length"], head.content) == (str(len(FILE)), b"")
    for _ in range(20):  # of which 32 may run at once: each gives its place back
        assert client.get(path, headers={**token, "Range": "bytes=0-0"}).status_code == 206
        assert client.request("HEAD", path, headers=token).status_code == 200
    assert client.job(job["job_id"])["acknowledged_at"] is not None
    assert ok(client.get(job["job_id"]))["source_file_path"] == URL


def test_a_worker_that_is_to_fetch_an_object_itself_is_given_an_address(client):
    ok(client.post("", {**body(URL), "source_fetch": "worker", "source_sha256": "a" * 64}))
    job = client.claim("doc")
    token = {"X-Lease-Token": job["lease_token"]}
    told = client.get(job["source_file_url"], headers=token, allow_redirects=False)
    assert (told.status_code, "X-Source-Fetch" in told.headers) == (307, False)  # the bucket is the operator's choice
    assert told.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex('a' * 64)).decode()}:"
    assert requests.get(told.headers["Location"], timeout=60).content == FILE
    ok(client.post("", {**body("s3://files/in/none"), "source_fetch": "worker"}))
    job = client.claim("doc")
    refused(client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]}), 404, "not_found")


@pytest.mark.parametrize("url", [
    "s3://files/out/x", "s3://other/in/x", "s3://files/in/uploads/tenant-x/00/1", "s3://files/in/../x",
    "s3://files/in/", "S3://files/in/x", "gs://files/in/x",
])  # fmt: skip
def test_what_may_not_be_named_is_refused_as_the_job_is_created(client, store, url):
    before = len(store.recorded)
    assert "source_url" in refused(client.post("", body(url)), 422)["errors"]
    assert len(store.recorded) == before


def test_what_is_not_there_and_what_is_too_large_is_told_to_the_holder(client):
    put("in/large", FILE + b"x")
    for url, words in [("s3://files/in/none", "no such object"), ("s3://nosuch/x", "no such bucket|may not read"),
                       ("s3://files/in/large", "BRIDGE_UPLOAD_MAX_BYTES")]:  # fmt: skip
        job, token = taken(client, url)
        answer = client.get(job["source_file_url"], headers=token)
        assert re.search(words, refused(answer, 404, "not_found")["detail"])
        assert answer.headers["X-Job-Status"] == "processing"


def test_an_object_that_is_replaced_breaks_the_download_off(client, store, make_runtime):
    put("in/changing", FILE)
    runtime = make_runtime(source_allow="s3://files/in")
    seen = look_at_object(runtime, "s3://files/in/changing")
    pieces = object_pieces(runtime, seen, range(seen.size))
    assert next(pieces) == FILE[: bucket_sources.PIECE]
    put("in/changing", FILE[::-1])
    with pytest.raises(NotFound, match="replaced"):
        list(pieces)


def test_the_command_line_names_objects(bridge, client, tmp_path):
    environment = {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": client.key}
    jobbridge("jobs", "submit", "--source-url", URL, "--type", "doc", cwd=tmp_path, **environment)
    assert client.claim("doc")["source_name"] == "Bericht ü 100%.pdf"


@pytest.fixture
def elsewhere(make_runtime, monkeypatch):
    """Yield a core whose store is at another endpoint."""

    def at(url: str):
        for name, value in {**ACCESS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        bucket_sources._bucket.cache_clear()
        return make_runtime(source_allow="s3://files")

    yield at
    bucket_sources._bucket.cache_clear()


@pytest.mark.parametrize(("status", "kind"), [
    ("403 Forbidden", NotFound), ("401 Unauthorized", NotFound), ("404 Not Found", NotFound),
    ("400 Bad Request", Unavailable), ("500 Internal Server Error", Unavailable), ("200 OK", Unavailable),
])  # fmt: skip
def test_what_its_server_does_wrong(elsewhere, status, kind):
    said = answer(status, b"", kind="application/xml") if status[0] != "2" else b"nonsense\r\n\r\n"
    with scripted(said) as server, pytest.raises(kind):
        look_at_object(elsewhere(server.url), "s3://files/x")


def test_a_server_that_is_away_or_says_nothing_is_told_in_time(elsewhere, tmp_path):
    with scripted(b"") as server, pytest.raises(Unavailable):
        look_at_object(elsewhere(server.url), "s3://files/x")
    with pytest.raises(Unavailable):
        look_at_object(elsewhere(server.url), "s3://files/x")


def test_off_unless_the_operator_names_buckets(make_runtime):
    fields = CreateFields().load(body(URL))
    for allow in ("", "https://files.example.org"):
        with pytest.raises(Invalid, match="source_url"):
            enqueue(make_runtime(source_allow=allow), "default", fields)
    with pytest.raises(SettingsError, match="BRIDGE_SOURCE_ALLOW"):
        load_settings({"BRIDGE_SOURCE_ALLOW": "s3://*"})
