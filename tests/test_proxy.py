"""The reverse proxy of docs/operations.md: its own configuration, in a real nginx, before a real bridge.

Needs nginx and openssl (`apt-get install -y nginx-light openssl`); without them these tests are skipped. .ci/run
installs them when it is root.
"""

import re
import shutil
import signal
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.embedded.ports import free_port
from bridge.embedded.process import dies_with_parent
from bridge.names import API_BASE
from tests.client import Client, ok, refused
from tests.waiting import wait_until

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")
pytestmark = [
    pytest.mark.skipif(not (NGINX and shutil.which("openssl")), reason="nginx or openssl is missing"),
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def proxy(start_bridge, tmp_path_factory):
    """A bridge behind nginx: both, the address of the proxy, and its certificate."""
    bridge = start_bridge(celery=False, beat=False, api_processes="1", trusted_proxies="127.0.0.1")
    place, port = tmp_path_factory.mktemp("nginx"), free_port()
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=bridge -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", place / "key", "-out", place / "cert"], check=True, capture_output=True)
    (site,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    listen = f"listen 127.0.0.1:{port} ssl; ssl_certificate {place}/cert; ssl_certificate_key {place}/key;"
    for ours, here in {"127.0.0.1:8000": urlsplit(bridge.url).netloc, "listen 443 ssl;": listen}.items():
        assert site.count(ours) == 1
        site = site.replace(ours, here)
    temporary = "".join(
        f"{name}_temp_path {place}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = place / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{temporary}{site} }}\n"
    )
    nginx = subprocess.Popen(
        [str(NGINX), "-e", f"{place}/error.log", "-c", str(config)],
        stderr=subprocess.PIPE,
        preexec_fn=dies_with_parent(signal.SIGTERM),
    )

    def listens():
        with closing(socket.socket()) as probe:
            assert nginx.poll() is None, nginx.stderr.read()
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, "nginx")
    yield bridge, f"https://127.0.0.1:{port}", str(place / "cert")
    nginx.terminate()
    nginx.wait(30)
    nginx.stderr.close()
    bridge.stack.stop()


@pytest.fixture
def client(proxy):
    """A client that reaches the bridge through the proxy alone."""
    bridge, url, certificate = proxy
    tenant = bridge.client().tenant
    one = Client(url, bridge.key(tenant), bridge.files, tenant)
    one.session.trust_env, one.session.verify = False, certificate
    return one


def trusting(proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=proxy[2])


def test_every_answer_tells_to_come_by_tls_and_old_tls_is_refused(proxy, client):
    for path in ("/healthz", "/nowhere"):
        assert "max-age=" in client.get(path).headers["Strict-Transport-Security"]
    at = urlsplit(proxy[1])
    for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        old = trusting(proxy)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = version
        try:
            with (
                socket.create_connection((at.hostname, at.port)) as plain,
                old.wrap_socket(plain, server_hostname=at.hostname),
            ):
                spoken = True
        except (ssl.SSLError, ConnectionError):
            spoken = False
        assert spoken == taken, version


def test_the_metrics_are_not_for_those_outside(client):
    assert client.get("/metrics").status_code == 403


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
def test_a_result_over_the_limit_reaches_the_bridge_and_ends_its_attempt(client, where):
    client.create()
    job = client.claim(lease=60)
    body, headers = {"success": True, "content": "x" * 40_000_000}, {}
    if where == "header":
        headers["X-Lease-Token"] = job["lease_token"]
    else:
        body["lease_token"] = job["lease_token"]
    refused(client.put(f"{job['job_id']}/result", body, headers=headers), 413, "too_large")
    assert client.status(job["job_id"]) == "failed"


def test_a_worker_that_hangs_up_while_it_waits_is_given_nothing(proxy, client):
    at = urlsplit(proxy[1])
    waiting = f"GET {API_BASE}/poll?worker_id=gone&content_types=audio&wait=60 HTTP/1.1\r\nHost: a\r\n"
    with (
        socket.create_connection((at.hostname, at.port)) as plain,
        trusting(proxy).wrap_socket(plain, server_hostname=at.hostname) as connection,
    ):
        connection.sendall(f"{waiting}Authorization: Bearer {client.key}\r\n\r\n".encode())
        wait_until(lambda: ok(client.get("statistics"))["parked_polls"] == 1, "the poll to be parked")
    client.create()
    assert client.claim(worker_id="there", wait=30)["attempt"] == 1
