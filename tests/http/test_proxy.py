"""The reverse proxies of docs/operations.md: their configurations, in a real nginx and a real haproxy.

Needs nginx, haproxy and openssl (`apt-get install -y nginx-light haproxy openssl`); without them these tests are
skipped. .ci/run installs them when it is root.
"""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from bridge.cli.local.checkout import ROOT
from bridge.embedded.ports import free_port
from bridge.names import API_BASE
from tests.support.client import Client, ok, refused
from tests.support.proxies import listening
from tests.support.spellings import others
from tests.support.waiting import wait_until

PAGE = ROOT / "docs" / "operations.md"
NGINX, HAPROXY = (shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("nginx", "haproxy"))
pytestmark = [
    pytest.mark.skipif(not (NGINX and shutil.which("openssl")), reason="nginx or openssl is missing"),
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def bridge(start_bridge):
    """Return a bridge behind proxies, whose metrics are for this machine and for keys (the default)."""
    return start_bridge(celery=False, beat=False, api_processes="1", trusted_proxies="127.0.0.1")


def documented(language: str, replaced: dict[str, str]) -> str:
    """Return the configuration of the page, with what differs here in place of what it says."""
    (site,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for ours, here in replaced.items():
        assert site.count(ours) == 1
        site = site.replace(ours, here)
    return site


def configured(place: Path, servers: str) -> list[str]:
    """Write a configuration of nginx with these servers; return the command that runs it."""
    temporary = "".join(f"{n}_temp_path {place}/{n};\n" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = place / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{temporary}{servers} }}\n"
    )
    return [str(NGINX), "-e", f"{place}/error.log", "-c", str(config)]


def nginx(place: Path, port: int, bridge) -> list[str]:
    listen = f"listen 127.0.0.1:{port} ssl; ssl_certificate {place}/cert; ssl_certificate_key {place}/key;"
    here = {"127.0.0.1:8000": urlsplit(bridge.url).netloc, "listen 443 ssl;": listen}
    return configured(place, documented("nginx", here))


def haproxy(place: Path, port: int, bridge) -> list[str]:
    (place / "pem").write_text((place / "cert").read_text() + (place / "key").read_text())
    bind = f"bind 127.0.0.1:{port} ssl crt {place}/pem"
    here = {"127.0.0.1:8000": urlsplit(bridge.url).netloc, "bind :443 ssl crt /etc/haproxy/bridge.pem": bind}
    (place / "haproxy.cfg").write_text(documented("haproxy", here))
    return [str(HAPROXY), "-db", "-f", str(place / "haproxy.cfg")]


@pytest.fixture(scope="module", params=[nginx, haproxy], ids=["nginx", "haproxy"])
def proxy(request, bridge, tmp_path_factory):
    """Yield a bridge behind a proxy: both, the address of the proxy, and its certificate."""
    if request.param is haproxy and HAPROXY is None:
        pytest.skip("haproxy is missing")
    place, port = tmp_path_factory.mktemp("proxy"), free_port()
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=bridge -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", place / "key", "-out", place / "cert"], check=True, capture_output=True)
    with listening(request.param(place, port, bridge), port):
        yield bridge, f"https://127.0.0.1:{port}", str(place / "cert")


@pytest.fixture
def client(proxy):
    """Return a client that reaches the bridge through the proxy alone."""
    bridge, url, certificate = proxy
    tenant = bridge.client().tenant
    one = Client(url, bridge.key(tenant), bridge.files, tenant)
    one.session.trust_env, one.session.verify = False, certificate
    return one


def trusting(proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=proxy[2])


@contextmanager
def connected(proxy, by: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """Yield a connection to the proxy that speaks as this context says."""
    at = urlsplit(proxy[1])
    with (
        socket.create_connection((at.hostname, at.port), 30) as plain,
        by.wrap_socket(plain, server_hostname=at.hostname) as connection,
    ):
        yield connection


def test_every_answer_tells_to_come_by_tls_and_old_tls_is_refused(proxy, client):
    for path in ("/healthz", "/nowhere"):
        assert "max-age=" in client.get(path).headers["Strict-Transport-Security"]
    for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        old = trusting(proxy)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = version
        try:
            with connected(proxy, old):
                spoken = True
        except (ssl.SSLError, ConnectionError):
            spoken = False
        assert spoken == taken, version


def raw(proxy, path: str, *headers: str) -> tuple[int, str]:
    """Status and whole answer to a GET of this path, spelled so."""
    lines = [f"GET {path} HTTP/1.1", "Host: bridge.example.org", "Connection: close", *headers]
    with connected(proxy, trusting(proxy)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while more := connection.recv(65536):
            answer += more
    return int(answer.split(b" ", 2)[1]), answer.decode()


def test_the_metrics_are_not_for_those_outside_however_they_spell_them(proxy, client):
    assert client.get("/metrics").status_code == 403
    assert raw(proxy, "/metrics?x=y")[0] == 403
    assert raw(proxy, "http://bridge.example.org/metrics")[0] == 403
    moved = [
        "SCRIPT_NAME: /x",
        "SCRIPT-NAME: /x",
        "X-Script-Name: /x",
        "PATH_INFO: /metrics",
        "X-Original-URL: /metrics",
    ]
    answers = [(path, *raw(proxy, path)) for path in others("/metrics")]
    answers += [(header, *raw(proxy, "/x/metrics", header)) for header in moved]
    for spelled, status, answer in answers:
        assert status in (400, 403, 404), (spelled, status)
        assert "bridge_" not in answer, spelled


def test_a_proxy_that_closes_nothing_still_shows_the_metrics_to_keys_alone(bridge):
    for header in ({"X-Forwarded-For": "127.0.0.1"}, {"Via": "1.1 a"}, {"Host": "bridge.example.org"}):
        refused(requests.get(f"{bridge.url}/metrics", headers=header, timeout=30), 401)
    reader = bridge.client("default", ("read",))
    assert reader.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 200
    assert requests.get(f"{bridge.url}/metrics", timeout=30).status_code == 200


def test_the_way_of_a_job_through_the_proxy(client):
    with ThreadPoolExecutor(1) as pool:
        parked = pool.submit(client.claim, wait=60, lease=60)
        job_id = client.create(source_file_path=client.source(b"x" * 3_000_000))
        job = parked.result(60)
    assert job["job_id"] == job_id
    downloaded = client.get(job["source_file_url"], headers={"Range": "bytes=1000000-"})
    assert (downloaded.status_code, len(downloaded.content)) == (206, 2_000_000)
    assert ok(client.result(job)) == {"status": "completed", "ingestion_continued": False}


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_result_over_the_limit_reaches_the_bridge_and_ends_its_attempt(request, client, where):
    job = client.held()
    body, headers = {"success": True, "content": "x" * 40_000_000}, {}
    if where == "header":
        headers["X-Lease-Token"] = job["lease_token"]
    else:
        body["lease_token"] = job["lease_token"]
    try:
        refused(client.put(f"{job['job_id']}/result", body, headers=headers), 413, "too_large")
    except requests.ConnectionError:
        # haproxy ends a connection on which it has not read all; who still sends may not come to read the answer.
        assert "haproxy" in request.node.name
    client.session.close()
    wait_until(lambda: client.status(job["job_id"]) == "failed", "the attempt to be ended")


def test_a_worker_that_hangs_up_while_it_waits_is_given_nothing(proxy, client):
    waiting = f"GET {API_BASE}/poll?worker_id=gone&content_types=audio&wait=60 HTTP/1.1\r\nHost: a\r\n"
    with connected(proxy, trusting(proxy)) as connection:
        connection.sendall(f"{waiting}Authorization: Bearer {client.key}\r\n\r\n".encode())
        wait_until(lambda: ok(client.get("statistics"))["parked_polls"] == 1, "the poll to be parked")
    wait_until(lambda: ok(client.get("statistics"))["parked_polls"] == 0, "the hang-up to be noticed")
    client.create()
    assert client.claim(worker_id="there", wait=30)["attempt"] == 1
