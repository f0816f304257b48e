"""Downloads that nginx sends by itself, with the configuration of docs/operations.md, in a real nginx."""

import base64
import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from werkzeug.http import parse_options_header

from bridge.embedded.ports import free_port
from tests.http.test_proxy import NGINX, configured, documented
from tests.support.client import Client, ok, refused
from tests.support.proxies import listening

pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is missing")
CONTENT = bytes(range(256)) * 40
NAMES = [
    b"plain.bin", b"with space?and#and%41;a=b&c.bin", b"line\nbreak", b"\xff\xfe not UTF-8", "ü€.bin".encode(),
    b"..a..", b"%2e%2e%2fpasswd", b"back\\slash", b"deep/er/file",
]  # fmt: skip


@pytest.fixture(scope="module")
def bridge(start_bridge, tmp_path_factory):
    """Return a bridge with two source roots, the first one named by a link, that sends what nginx asks for by nginx."""
    place = tmp_path_factory.mktemp("roots")
    for name in ("first", "second"):
        (place / name).mkdir()
    (place / "link").symlink_to(place / "first")
    running = start_bridge(
        celery=False, beat=False, api_processes="1", trusted_proxies="127.0.0.1", accel_redirect_prefix="/bridge-files",
        source_roots=f"{place}/link:{place}/second",
    )  # fmt: skip
    running.roots = [place / "first", place / "second"]
    return running


@pytest.fixture(scope="module")
def proxy(bridge, tmp_path_factory):
    """Yield the address of an nginx before it."""
    place, port = tmp_path_factory.mktemp("nginx"), free_port()
    block = documented("nginx location", {})
    blocks = [
        block.replace("/bridge-files/0/", f"/bridge-files/{n}/").replace("/srv/files/", f"{root}/")
        for n, root in enumerate(bridge.roots)
    ]
    server = (
        f"server {{ listen 127.0.0.1:{port};\nlocation / {{ proxy_pass http://{urlsplit(bridge.url).netloc};"
        f" proxy_set_header Host $host; proxy_buffering off; }}\n{''.join(blocks)} }}\n"
    )
    with listening(configured(place, server), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(bridge, proxy):
    """Return a client that reaches the bridge through nginx."""
    tenant = bridge.client().tenant
    one = Client(proxy, bridge.key(tenant), bridge.roots[0], tenant)
    one.session.trust_env = False
    return one


def claimed(client, path, content=CONTENT, **fields):
    """Return a claimed job whose source file is this one, which is made with this content."""
    Path(os.fsdecode(path)).write_bytes(content)
    uri = "file://" + "".join(f"%{byte:02x}" if byte != 47 else "/" for byte in os.fsencode(path))
    body = {"source_file_path": uri, "content_type": "audio", "ingestion_task_id": "task", **fields}
    ok(client.post("", body))
    return client.claim()


@pytest.mark.parametrize("root", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_nginx_sends_the_file_whatever_its_name(bridge, client, root, name):
    path = os.path.join(os.fsencode(bridge.roots[root]), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    job = claimed(client, path, CONTENT + name)
    answer = client.download(job)
    assert (answer.status_code, answer.content) == (200, CONTENT + name)
    assert "X-Accel-Redirect" not in answer.headers
    assert answer.headers["X-Job-Status"] == "processing"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert parse_options_header(answer.headers["Content-Disposition"])[1] == {"filename": job["source_name"]}
    assert client.job(job["job_id"])["acknowledged_at"] is not None


def test_ranges_and_conditions_are_nginxs(bridge, client):
    job = claimed(client, bridge.roots[0] / "ranges")
    whole = client.download(job)
    etag = whole.headers["ETag"]
    part = client.download(job, Range="bytes=100-199")
    assert (part.status_code, part.content, part.headers["ETag"]) == (206, CONTENT[100:200], etag)
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"
    assert "Repr-Digest" not in part.headers
    assert client.download(job, Range="bytes=100-", If_Range=etag).content == CONTENT[100:]
    other = client.download(job, Range="bytes=100-", If_Range='"other"')
    assert (other.status_code, other.content) == (200, CONTENT)
    assert client.download(job, If_None_Match=etag).status_code == 304
    for headers in ({"Range": "bytes=99999-"}, {"Range": "bytes=99999-", "If_Range": etag}):
        refused(client.download(job, **headers), 416)
    head = client.download(job, "HEAD")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(CONTENT)))


def test_a_declared_digest_passes_through_nginx(bridge, client):
    job = claimed(client, bridge.roots[0] / "declared", source_sha256=hashlib.sha256(CONTENT).hexdigest())
    for asked in ({}, {"Range": "bytes=100-199"}):
        told = client.download(job, **asked).headers["Repr-Digest"]
        assert told == f"sha-256=:{base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}:"


def test_rights_are_checked_here(bridge, client):
    job = claimed(client, bridge.roots[0] / "rights")
    assert "Rights" not in refused(client.download({**job, "lease_token": "x" * 43}), 409, "lease_lost")["detail"]
    stranger = Client(client.url, bridge.key("t-elsewhere"), bridge.roots[0])
    stranger.session.trust_env = False
    refused(stranger.download(job), 404)
    ok(client.result(job))
    refused(client.download(job), 403)


def test_nobody_can_ask_nginx_for_a_file(bridge, client):
    (bridge.roots[0] / "secret").write_bytes(CONTENT)
    for path in (
        "/bridge-files/0/secret",
        "/bridge-files/0/../0/secret",
        "//bridge-files/0/secret",
        "/%62ridge-files/0/secret",
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert CONTENT not in answer.content


def test_a_link_that_is_put_there_is_not_followed(bridge, client, tmp_path):
    (tmp_path / "outside").write_bytes(CONTENT)
    directory = bridge.roots[0] / "directory"
    directory.mkdir()
    path = directory / "file"
    job = claimed(client, path, b"inside")
    assert client.download(job).content == b"inside"
    path.unlink()
    path.symlink_to(tmp_path / "outside")
    refused(client.download(job), 404)  # the bridge looks
    path.unlink()
    path.symlink_to(bridge.roots[0] / "ranges2")
    (bridge.roots[0] / "ranges2").write_bytes(b"also inside")
    assert client.download(job).content == b"also inside"  # a link within the root is resolved before nginx hears of it
    path.unlink()
    refused(client.download(job), 404)


def test_who_does_not_come_through_the_proxy_is_sent_the_bytes(bridge, client):
    class From(HTTPAdapter):
        def init_poolmanager(self, *given, **options):
            super().init_poolmanager(*given, **options, source_address=("127.0.0.2", 0))

    job = claimed(client, bridge.roots[0] / "direct")
    direct = requests.Session()
    direct.trust_env = False
    direct.mount("http://", From())
    headers = {
        "Authorization": f"Bearer {client.key}",
        "X-Lease-Token": job["lease_token"],
        "X-Forwarded-For": "127.0.0.1",
    }
    answer = direct.get(f"{bridge.url}{job['source_file_url']}", headers=headers, timeout=60)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "X-Accel-Redirect" not in answer.headers
