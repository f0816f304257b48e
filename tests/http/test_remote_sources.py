"""Sources at https addresses: through a whole create, claim and download, from servers that are what they may be."""

import base64
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest
import requests

from bridge import names
from tests.support.client import Client, ok, refused
from tests.support.file_server import ETAG, FILE, HERE, certificate_for, files, raw
from tests.support.quick_command import quick_jobbridge as jobbridge
from tests.support.receiver import Received, Receiver, answer, receiver
from tests.support.running import Running
from tests.support.waiting import LATEST, wait_until
from tests.support.working import working

AT_ONCE = 32  # downloads of one key
SHA256 = hashlib.sha256(FILE)
REPR = f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_for(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def bridge(start_bridge, certificate: Path) -> Running:
    """One process, so that a download that held it up would hold up all."""
    allow = f"https://{HERE}:*,https://localhost:*"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        return start_bridge(beat=False, api_processes="1", source_allow=allow, source_networks=HERE,
                            source_worker_fetch="on", upload_max_bytes="1000000")  # fmt: skip


@pytest.fixture
def there(certificate: Path) -> Iterator[Receiver]:
    with receiver(certificate, HERE) as it:
        it.answers = files
        yield it


def at(there: Receiver, path: str = "a%20b/Bericht%20%C3%BC.pdf?signature=secret") -> str:
    return f"https://{HERE}:{there.port}/{path}"


def body(url: str) -> dict[str, str]:
    return {"source_url": url, "content_type": "doc", "ingestion_task_id": "x"}


def taken(client: Client, url: str, **fields: str):
    """Return a job of this address, claimed; and its holder's token."""
    job_id = ok(client.post("", {**body(url), **fields}))["job_id"]
    job = client.claim("doc")
    assert job["job_id"] == job_id
    return job, {"X-Lease-Token": job["lease_token"]}


def test_a_worker_gets_what_is_at_an_address_as_it_gets_a_file(client, there):
    job, token = taken(client, at(there))
    told = (job["source_name"], job["source_size"], job["source_media_type"], job["source_sha256"])
    assert told == ("Bericht ü.pdf", None, "application/pdf", None)
    assert not there.got
    whole = client.get(job["source_file_url"], headers=token)
    assert (whole.status_code, whole.content, whole.headers["ETag"]) == (200, FILE, ETAG)
    assert whole.headers["Content-Length"] == str(len(FILE))
    assert whole.headers["Content-Type"] == "application/octet-stream"
    assert "filename*=UTF-8''Bericht%20%C3%BC.pdf" in whole.headers["Content-Disposition"]
    assert "Set-Cookie" not in whole.headers
    (got,) = there.got
    assert got.path == "/a%20b/Bericht%20%C3%BC.pdf?signature=secret"
    assert got.headers == {"host": f"{HERE}:{there.port}", "connection": "close", "accept-encoding": "identity",
                           "user-agent": got.headers["user-agent"]}  # fmt: skip
    assert client.job(job["job_id"])["acknowledged_at"] is not None


def test_ranges_and_conditions_are_those_of_its_server_and_the_digest_its_producers(client, there):
    job, token = taken(client, at(there), source_sha256=SHA256.hexdigest())
    path = job["source_file_url"]
    assert job["source_sha256"] == SHA256.hexdigest()
    part = client.get(path, headers={**token, "Range": "bytes=511990-", "If-Range": ETAG})
    assert (part.status_code, part.content) == (206, FILE[511990:])
    assert part.headers["Content-Range"] == f"bytes 511990-511999/{len(FILE)}"
    whole = client.get(path, headers={**token, "Range": "bytes=5-", "If-Range": '"v0"'})
    assert (whole.status_code, whole.headers["Repr-Digest"], part.headers["Repr-Digest"]) == (200, REPR, REPR)
    assert client.get(path, headers={**token, "Range": "bytes=0-1,5-6"}).status_code == 200
    assert refused(client.get(path, headers={**token, "Range": "bytes=512000-"}), 416)
    assert client.get(path, headers={**token, "If-None-Match": ETAG}).status_code == 304
    head = client.request("HEAD", path, headers=token)
    assert (head.headers["Content-Length"], head.content) == (str(len(FILE)), b"")
    assert [got.headers.get("range") for got in there.got[:3]] == ["bytes=511990-", "bytes=5-", None]


def test_the_query_is_shown_to_nobody_and_other_tenants_see_nothing(bridge, client, there):
    job, _ = taken(client, at(there))
    shown = client.get(job["job_id"])
    assert ok(shown)["source_file_path"] == at(there).partition("?")[0]
    for text in (shown.text, client.get("").text):
        assert "secret" not in text
    assert bridge.client().get(job["source_file_url"]).status_code == 404
    assert not there.got


def test_one_source_is_named_and_only_where_it_may(bridge, client, there):
    neither = {"content_type": "doc", "ingestion_task_id": "x"}
    two = {**body(at(there)), "source_file_path": client.source()}
    assert "source_url" in refused(client.post("", two), 422)["errors"]
    smuggled = {**neither, "source_file_path": at(there)}
    assert "source_file_path" in refused(client.post("", smuggled), 422)["errors"]
    batch = {"jobs": [body(at(there)), {**neither, "source_file_path": client.source()}, body("https://example.org/")]}
    assert list(refused(client.post("batch", batch), 422)["errors"]) == ["jobs.2.source_url"]
    batch["jobs"].pop()
    assert len(ok(client.post("batch", batch))["jobs"]) == 2
    key = {"Idempotency-Key": "once"}
    assert ok(client.post("", body(at(there)), headers=key)) == ok(client.post("", body(at(there)), headers=key))
    refused(client.post("", body(at(there, "other")), headers=key), 422)


@pytest.mark.parametrize("url", [
    "http://127.0.0.2:{}/x", "https://127.0.0.1:{}/x", "https://[::1]:{}/x", "https://[::ffff:127.0.0.2]:{}/x",
    "https://127.2:{}/x", "https://2130706434:{}/x", "https://0x7f000002:{}/x", "https://169.254.169.254/latest",
    "https://127.0.0.2@127.0.0.1:{}/", "https://localhost.:{}/x", "https://x.localhost:{}/x", "file:///etc/passwd",
    "https://127.0.0.2:{}/../x", "s3://bucket/key", "HTTPS://127.0.0.2:{}/x", "https://127.0.0.2:{}\\@127.0.0.1/", "",
])  # fmt: skip
def test_what_leads_elsewhere_is_refused_as_the_job_is_created(client, there, url):
    assert "source_url" in refused(client.post("", body(url.format(there.port))), 422)["errors"]
    assert not there.got


def test_a_name_that_leads_to_an_inner_address_is_refused_as_it_is_downloaded(client, certificate):
    """`localhost` is named by the operator, its address is not: it is known only when the name is looked up."""
    with receiver(certificate) as canary:
        job, token = taken(client, f"https://localhost:{canary.port}/x")
        problem = refused(client.get(job["source_file_url"], headers=token), 404, "not_found")
        assert "may not be reached" in problem["detail"]
        assert "127.0.0" not in problem["detail"]  # nobody learns what names mean in our network
        assert not canary.got


@pytest.mark.parametrize(("answers", "status", "words"), [
    (answer(404), 404, "answers 404"), (answer(403), 404, "answers 403"), (answer(204), 404, "answers 204"),
    (answer(500), 503, "answers 500"), (answer(429), 503, "answers 429"),
    (answer(206, "x", Content_Range="bytes 0-0/9"), 404, "another one"),
    (answer(200, "x", Content_Encoding="gzip"), 404, "encoded"),
    (raw("200 x\nTransfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"), 404, "Content-Length"),
    (raw("200 x\nTransfer-Encoding: chunked\nContent-Length: 1", b"1\r\nx\r\n0\r\n\r\n"), 404, "Content-Length"),
    (raw("200 x", b"without a length"), 404, "Content-Length"),
    (raw("200 x\nContent-Length: 1\nContent-Length: 2", b"xx"), 503, "connection failed"),
    (raw("200 x\nContent-Length: 1000001"), 404, "BRIDGE_UPLOAD_MAX_BYTES"),
    (raw("200 x\nX: " + "x" * 200_000), 503, "connection failed"), (raw("nonsense"), 503, "connection failed"),
])  # fmt: skip
def test_what_its_server_does_wrong_is_told_to_the_holder(client, there, answers, status, words):
    job, token = taken(client, at(there))
    there.answers = answers
    told = client.get(job["source_file_url"], headers=token)
    problem = refused(told, status, {404: "not_found", 503: "unavailable"}[status])
    assert words in problem["detail"]
    assert told.headers["X-Job-Status"] == "processing"
    assert ("Retry-After" in told.headers) == (status == 503)


def test_a_redirect_leads_nowhere_and_a_server_that_is_away_is_told(client, certificate, there):
    with receiver(certificate, HERE) as canary:
        job, token = taken(client, at(there))
        there.answers = answer(302, Location=at(canary))
        assert "redirect" in refused(client.get(job["source_file_url"], headers=token), 404)["detail"]
        assert not canary.got
    job, token = taken(client, at(canary))
    assert "cannot be reached" in refused(client.get(job["source_file_url"], headers=token), 503)["detail"]


@pytest.mark.parametrize("more", [0, 5, 300_000])
def test_a_length_that_is_a_lie_is_seen_by_the_holder(client, there, more):
    """What is missing breaks the download off; what is too much is not passed on."""
    job, token = taken(client, at(there))
    there.answers = raw("200 x\nContent-Length: 400000", b"x" * more)
    with pytest.raises(requests.RequestException):
        client.get(job["source_file_url"], headers=token)
    there.answers = raw("200 x\nContent-Length: 4", b"x" * 100_000)
    assert client.get(job["source_file_url"], headers=token).content == b"xxxx"


def test_servers_that_hang_hold_up_their_downloads_alone_of_which_a_key_has_so_many(client, there):
    job, token = taken(client, at(there))
    goes_on = Event()

    def hangs(handler: BaseHTTPRequestHandler, came: Received) -> None:
        goes_on.wait(120)
        files(handler, came)

    there.answers = hangs
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [pool.submit(client.get, job["source_file_url"], headers=token) for _ in range(AT_ONCE)]
        try:
            wait_until(lambda: len(there.got) == AT_ONCE, "all of them to come")
            assert client.get("/health", timeout=20).status_code == 200
            assert not any(one.done() for one in waiting)
            refusal = client.get(job["source_file_url"], headers=token)
            refused(refusal, 429, "too_many")
            assert int(refusal.headers["Retry-After"]) > 0
        finally:
            goes_on.set()
        assert {one.result(60).content for one in waiting} == {FILE}
    assert client.get(job["source_file_url"], headers=token).content == FILE


def test_celery_takes_addresses_too(bridge, client, there):
    def sent(url: str):
        kwargs = {**body(url), "tenant": client.tenant, "source_fetch": "worker"}
        return bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE)

    job_id = sent(at(there)).get(timeout=LATEST)["job_id"]
    job = client.claim("doc")
    assert (job["job_id"], job["source_name"]) == (job_id, "Bericht ü.pdf")
    assert client.job(job_id)["source_fetch"] == "worker"
    with pytest.raises(Exception, match="source_url"):
        sent(f"https://127.0.0.1:{there.port}/x").get(timeout=LATEST)


def test_the_command_line_names_addresses(bridge, client, there, tmp_path):
    environment = {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": client.key}
    done = jobbridge("jobs", "submit", client.source(), "--source-url", at(there), "--source-fetch", "worker",
                     "--type", "doc", cwd=tmp_path, **environment)  # fmt: skip
    assert "Bericht" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    jobs = [client.claim("doc") for _ in range(2)]
    assert {one["source_name"]: client.job(one["job_id"])["source_fetch"] for one in jobs}["Bericht ü.pdf"] == "worker"


def test_a_worker_is_told_where_to_fetch_what_it_is_to_fetch_itself(client, there):
    job, token = taken(client, at(there), source_fetch="worker", source_sha256=SHA256.hexdigest())
    assert str(there.port) not in str(job)
    told = client.get(job["source_file_url"], headers=token, allow_redirects=False)
    assert (told.status_code, told.content, told.headers["Location"]) == (307, b"", at(there))
    assert (told.headers["Cache-Control"], told.headers["X-Source-Fetch"]) == ("no-store", "worker")
    assert told.headers["Repr-Digest"] == REPR
    assert "filename*=UTF-8''Bericht%20%C3%BC.pdf" in told.headers["Content-Disposition"]
    assert not there.got
    shown = client.job(job["job_id"])
    assert (shown["source_fetch"], shown["acknowledged_at"] is None) == ("worker", False)
    assert client.get(job["source_file_url"]).content == FILE  # who holds no lease is passed the bytes


@pytest.mark.parametrize("kind", ["bridge_worker", "bash"])
def test_workers_fetch_a_source_by_themselves(bridge, client, there, certificate, tmp_path, kind):
    asked = {**body(at(there)), "source_fetch": "worker"}
    job_id, other = (
        ok(client.post("", {**asked, "source_sha256": sha256}))["job_id"] for sha256 in (SHA256.hexdigest(), "0" * 64)
    )
    own = {"bridge_worker": ("--source-networks", HERE), "bash": ()}[kind]
    trusted = {"REQUESTS_CA_BUNDLE": str(certificate), "CURL_CA_BUNDLE": str(certificate), "WORKER_SOURCE_FETCH": "1"}
    with working(bridge, client, kind, "doc", tmp_path / "log", *own, **trusted):
        wait_until(lambda: client.job(job_id)["status"] == "completed", "the job to be completed")
        wait_until(lambda: client.job(other)["status"] == "failed", "the other one to fail")
    assert ok(client.get(f"{job_id}/result"))["content"] == f"{len(FILE)} bytes"
    assert "not the one that was declared" in client.job(other)["error_message"]
    assert len(there.got) == 3  # what is another file is asked for once more
    assert not any({"authorization", "x-lease-token", "cookie"} & got.headers.keys() for got in there.got)
    assert "secret" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("kind", ["bridge_worker", "bash"])
def test_a_worker_is_not_led_into_its_own_networks(bridge, client, there, certificate, tmp_path, kind):
    job_id = ok(client.post("", {**body(at(there)), "source_fetch": "worker"}))["job_id"]
    with working(bridge, client, kind, "doc", tmp_path / "log", REQUESTS_CA_BUNDLE=str(certificate)):
        wait_until(lambda: client.job(job_id)["status"] == "failed", "the job to fail")
    said = client.job(job_id)["error_message"]
    assert {"bridge_worker": "--source-networks", "bash": "WORKER_SOURCE_FETCH"}[kind] in said
    assert "secret" not in said
    assert not there.got
