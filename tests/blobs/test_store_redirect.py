"""Downloads that the bucket itself gives (BRIDGE_STORE_REDIRECT=on), as every client of ours fetches them.

A fault proxy stands before SeaweedFS, for the bridge and for those whom it sends there: what they send is seen.
REDIRECT_MIB says how large the file is (`make clients`: 24).
"""

import base64
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from jobbridge_client import Client
from tests.support.client import ok, refused
from tests.support.command import jobbridge
from tests.support.memory_peak import Peak, processes
from tests.support.of_an_attempt import sent as of_attempt
from tests.support.seaweed import watched_bucket
from tests.support.tus import announce, append
from tests.support.waiting import wait_until
from tests.support.working import working

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
MIB = 1024 * 1024
FILE = b"count\n" + os.urandom(int(os.environ.get("REDIRECT_MIB", "24")) * MIB)  # three parts, and more
TEXT = "Größe ✓ ".encode() * 800_000
OVER_IDLE_MIB = 64
DOWNLOADS = 8  # at once
SIGNED = re.compile(rb"GET \S*X-Amz-Signature=\S* HTTP/1\.1\r\n")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with watched_bucket(tmp_path_factory.mktemp("bucket") / "seaweed") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bridge(start_bridge, store):
    bridge = start_bridge(
        celery=False, beat=False, api_processes="1", store="s3://files/some/prefix", store_redirect="on",
        store_object_bytes=str(2**31 - 1),
    )  # fmt: skip
    yield bridge
    bridge.stack.stop()


@pytest.fixture
def client(bridge):
    return bridge.client()


def sent(client, *parts: bytes, **metadata) -> str:
    """Return an upload that came in these requests; its address."""
    place, at = announce(client, sum(map(len, parts)), **metadata), 0
    for part in parts:
        assert append(client, place, at, part).status_code == 204
        at += len(part)
    return place


def job_of(client, *parts: bytes, **metadata: str):
    """Return a job of such an upload, claimed; and its holder's token."""
    upload = sent(client, *parts, **metadata).rpartition("/")[2]
    made = {"content_type": "audio", "ingestion_task_id": "x", "source_upload": upload}
    job_id = ok(client.post("", made))["job_id"]
    job = client.claim("audio")
    assert job["job_id"] == job_id
    return job, {"X-Lease-Token": job["lease_token"]}


def heads(store) -> list[bytes]:
    return [chunk.partition(b"\r\n\r\n")[0] for chunk in list(store.recorded) if SIGNED.match(chunk)]


def test_a_get_is_sent_to_the_store_and_everything_else_is_answered_here(client):
    job, token = job_of(client, FILE, filename="Größe.bin")
    path = job["source_file_url"]
    told = client.get(path, headers=token, allow_redirects=False)
    assert (told.status_code, told.content) == (307, b"")
    etag, digest = f'"{hashlib.sha256(FILE).hexdigest()}"', base64.b64encode(hashlib.sha256(FILE).digest()).decode()
    assert (told.headers["ETag"], told.headers["Repr-Digest"]) == (etag, f"sha-256=:{digest}:")
    assert "filename*=UTF-8''Gr%C3%B6%C3%9Fe.bin" in told.headers["Content-Disposition"]
    assert told.headers["Cache-Control"] == "no-store"
    assert client.job(job["job_id"])["acknowledged_at"] is not None
    whole = requests.get(told.headers["Location"], timeout=60)
    assert (whole.status_code, whole.content) == (200, FILE)
    part = requests.get(told.headers["Location"], headers={"Range": "bytes=5-9"}, timeout=60)
    assert (part.status_code, part.content) == (206, FILE[5:10])
    other = told.headers["Location"].replace("/prefix/", "/other/")
    assert requests.get(other, timeout=60).status_code in (403, 404)
    head = client.request("HEAD", path, headers=token, allow_redirects=False)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(FILE)))
    assert client.get(path, headers={**token, "If-None-Match": etag}).status_code == 304
    refused(client.get(path, headers={**token, "Range": f"bytes={len(FILE)}-"}), 416)


def test_a_checkpoint_is_given_by_the_store_to_its_holder(client):
    job, token = job_of(client, b"source")
    body = {"checkpoint_upload": of_attempt(client, job, FILE)}
    ok(client.put(f"{job['job_id']}/checkpoint", body, headers=token))
    told = client.get(f"{job['job_id']}/checkpoint", headers=token, allow_redirects=False)
    assert (told.status_code, told.headers["ETag"]) == (307, f'"{hashlib.sha256(FILE).hexdigest()}"')
    assert requests.get(told.headers["Location"], timeout=60).content == FILE
    assert client.job(job["job_id"])["acknowledged_at"] is not None
    refused(client.get(f"{job['job_id']}/checkpoint", allow_redirects=False), 409, "lease_lost")


def test_what_came_in_several_requests_is_given_by_the_bridge(client):
    job, token = job_of(client, FILE[:1_000_000], FILE[1_000_000:])
    answer = client.get(job["source_file_url"], headers=token, allow_redirects=False)
    assert (answer.status_code, answer.content) == (200, FILE)


@pytest.fixture
def over_idle(bridge):
    """Return a function that says how many MiB the API has had beyond what it has now."""
    [process] = processes(bridge)
    idle = process.memory_info().rss
    with Peak([process]) as peak:
        yield lambda: (peak.of[process.pid] - idle) / MIB


def test_a_file_that_the_client_sends_is_one_object_and_takes_little_memory(client, tmp_path, over_idle):
    (tmp_path / "file").write_bytes(FILE)
    with Client(client.url, client.key) as sdk:
        job_id = sdk.submit(tmp_path / "file", "audio").job_id
    job = client.claim("audio")
    assert job["job_id"] == job_id
    token = {"X-Lease-Token": job["lease_token"]}
    assert client.get(job["source_file_url"], headers=token, allow_redirects=False).status_code == 307
    assert over_idle() <= OVER_IDLE_MIB


def test_many_downloads_through_the_bridge_take_little_memory(client, over_idle):
    job, token = job_of(client, FILE[:-1], FILE[-1:])
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        came = pool.map(lambda _: client.get(job["source_file_url"], headers=token).content == FILE, range(DOWNLOADS))
        assert all(came)
    assert over_idle() <= OVER_IDLE_MIB


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["bridge_worker", "bash"])
def test_workers_fetch_there_without_key_and_token(bridge, client, store, tmp_path, kind, cut):
    upload = sent(client, FILE).rpartition("/")[2]
    made = {"content_type": "audio", "ingestion_task_id": "x", "source_upload": upload}
    job_id = ok(client.post("", made))["job_id"]
    already = len(heads(store))
    if cut:
        store.cut_on(SIGNED, before=False, through=len(FILE) // 2)
    with working(bridge, client, kind, "audio", tmp_path / "log"):
        wait_until(lambda: client.job(job_id)["status"] == "completed", "the job to be completed")
    assert ok(client.get(f"{job_id}/result"))["content"] == f"{len(FILE)} bytes"
    assert len(client.job(job_id)["attempts"]) == 1
    there = heads(store)[already:]
    assert len(there) == 1 + cut
    assert not re.search(rb"(?i)authorization:|bearer|x-lease-token|if-range", b"".join(there))
    assert (b"range: bytes=" in there[-1].lower()) == cut
    assert "X-Amz" not in (tmp_path / "log").read_text()


@pytest.fixture
def ended(client):
    """Return a completed job with an uploaded text and artifact, and their contents."""
    client.create("audio")
    job = client.claim("audio")
    files = {"text": TEXT, "page.png": FILE}
    owned = {"X-Lease-Token": job["lease_token"]}
    ids = {}
    for name, content in files.items():
        place = announce(client, len(content), {**owned}, job_id=job["job_id"])
        assert append(client, place, 0, content, owned).status_code == 204
        ids[name] = place.rpartition("/")[2]
    named = {"result_upload": ids["text"], "artifacts": [{"name": "page.png", "upload": ids["page.png"]}]}
    ok(client.result(job, content=None, **named))
    return job["job_id"], files


@pytest.mark.parametrize("cut", [False, True])
def test_the_client_and_the_command_line_fetch_there_without_key(bridge, client, store, ended, tmp_path, cut):
    job_id, files = ended
    already = len(heads(store))
    if cut:
        store.cut_on(SIGNED, before=False, through=300_000)
    with Client(client.url, client.key) as sdk:
        assert sdk.save_result(job_id, tmp_path / "text").read_bytes() == files["text"]
        assert sdk.save_artifact(job_id, "page.png", tmp_path / "page").read_bytes() == FILE
        assert sdk.result(job_id).text.encode() == files["text"]
    environment = {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": client.key}
    jobbridge("jobs", "artifacts", job_id, "--output", str(tmp_path / "all"), cwd=tmp_path, **environment)
    assert Path(tmp_path, "all", "page.png").read_bytes() == FILE
    there = heads(store)[already:]
    assert len(there) == 3 + cut
    assert not re.search(rb"(?i)authorization:|bearer|if-range", b"".join(there))
    assert sum(b"range: bytes=" in head.lower() for head in there) == cut
