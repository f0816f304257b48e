"""Keys: who gets in, what a scope opens, and that a tenant sees nothing of another."""

import subprocess

import pytest
import requests

from api.http.local_only import is_local
from bridge.cli.local import command_lines
from bridge.cli.local.checkout import ROOT
from tests.support.client import Client, ok, refused


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_what_probes_and_newcomers_ask_for_needs_no_key(bridge, path):
    assert Client(bridge.url, None, bridge.files).get(path).status_code == 200


def test_a_key_may_come_as_bearer_in_any_case_or_as_x_api_key(bridge, client):
    nobody = Client(bridge.url, None, bridge.files)
    for headers in (
        {"Authorization": f"Bearer {client.key}"},
        {"Authorization": f"bearer   {client.key}"},
        {"X-API-Key": client.key},
        {"X-API-Key": client.key, "Authorization": "Basic dXNlcjpwYXNz"},
    ):
        assert ok(nobody.get("", headers=headers)) == {"jobs": [], "next_cursor": None}


def test_a_key_in_the_address_is_not_looked_at(bridge, client):
    """Addresses stand in the logs of every proxy."""
    nobody = Client(bridge.url, None, bridge.files)
    for name in ("key", "api_key", "X-API-Key", "Authorization", "access_token"):
        refused(nobody.get("", params={name: client.key}), 401, "unauthorized")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer jb_00000000_" + "x" * 43},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Bearer ü".encode().decode("latin-1")},
        {"X-API-Key": ""},
    ],
    ids=str,
)
def test_a_key_that_does_not_count_gets_a_401(bridge, headers):
    refused(Client(bridge.url, None, bridge.files).get("", headers=headers), 401, "unauthorized")


def test_another_tenants_result_is_none_of_ours_to_replay(bridge, client):
    job = client.held(lease=None)
    ok(client.result(job, content="text"))
    refused(bridge.client().result(job, content="text"), 404, "not_found")


def test_the_bootstrap_key_is_an_admin_key_of_the_default_tenant(own_bridge):
    secret = "a bootstrap key of our own choice, 40 long"
    bridge = own_bridge(celery=False, beat=False, bootstrap_key=secret)
    client = Client(bridge.url, secret, bridge.files)
    job_id = client.create()
    assert client.job(job_id)["status"] == "pending"
    (row,) = bridge.sql("SELECT tenant, scopes, name, CAST(api_keys AS text) AS whole FROM api_keys")
    assert (row.tenant, row.scopes, row.name) == ("default", ["admin"], "bootstrap")
    assert secret not in row.whole
    assert [one["job_id"] for one in ok(bridge.client("default").get(""))["jobs"]] == [job_id]


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "192.0.2.1"},
    {"Host": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Referer": "http://evil.example/page"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


LOCAL = ["localhost", "LOCALHOST:80", "a.localhost", "127.0.0.1:1", "127.8.0.1", "[::1]:8000", "[::ffff:127.0.0.1]"]
NOT_LOCAL = [
    "", ":80", "0.0.0.0", "[::]", "127.1", "localhost.", "127.0.0.1.evil.example", "localhost.evil.example",
    "localhost,evil.example", "evil@localhost", "a:b@127.0.0.1", "localhost/x", "localhost?x",
    "localhost#@evil.example", "localhost\\evil.example", "localhost:80:80", "localhost:evil", "\tlocalhost",
    "localhost ", "[::1", "[::1%25lo]", "[localhost]", "//localhost", "ſlocalhost", "localhost\n",
]  # fmt: skip


def test_a_name_is_local_only_as_it_stands():
    assert [host for host in LOCAL if not is_local(host)] == []
    assert [host for host in NOT_LOCAL if is_local(host)] == []


def test_with_keys_off_no_web_page_of_another_site_does_anything(with_keys_off):
    """DNS rebinding (a foreign name for this machine) and cross-site requests, those by GET included."""
    client = Client(with_keys_off.url, None, with_keys_off.files)
    job_id = client.create("page")
    for headers in FOREIGN:
        for method, path in (
            ("GET", "poll?worker_id=w&content_types=page&wait=0"),
            ("GET", ""),
            ("POST", f"{job_id}/cancel"),
            ("POST", "cancel?content_type=page"),
        ):
            refused(client.request(method, path, headers=headers), 403, "forbidden")
    assert client.status(job_id) == "pending"
    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"):
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        ok(client.get(f"{job_id}/status", headers=own))


@pytest.fixture(scope="module")
def with_keys_off(start_bridge):
    """Return a bridge that asks for no keys."""
    return start_bridge(celery=False, beat=False, auth="off", api_processes="1")


def test_with_keys_off_everybody_is_one_key_of_the_default_tenant(with_keys_off):
    first, second = (Client(with_keys_off.url, key, with_keys_off.files) for key in (None, "any key at all"))
    job_id = first.create()
    job = second.claim(lease=None)
    assert job["job_id"] == job_id
    ok(first.result({"job_id": job_id}))
    (row,) = with_keys_off.sql("SELECT tenant, status FROM remote_jobs WHERE id = :id", id=job_id)
    assert tuple(row) == ("default", "completed")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "bridge.example.org"])
def test_with_keys_off_the_api_refuses_to_listen_beyond_loopback(bridge, host):
    environment = {**bridge.stack.environment, "BRIDGE_AUTH": "off", "BRIDGE_HOST": host, "BRIDGE_PORT": "0"}
    done = subprocess.run(command_lines.api(), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "BRIDGE_HOST" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_with_keys_off_it_listens_beyond_loopback_where_that_is_asked_for(own_bridge):
    bridge = own_bridge(celery=False, beat=False, auth="off", host="0.0.0.0", auth_off_anywhere="1", api_processes="1")
    assert requests.get(f"{bridge.url}/healthz", timeout=10).status_code == 200
