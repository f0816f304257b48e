"""A file that did not come as one object is given by the bucket itself, once Celery has joined it."""

import hashlib
import os

import pytest
import requests

from jobbridge_client import Client
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.seaweed import watched_bucket
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
MIB = 1024 * 1024
FILE = os.urandom(20 * MIB + 12_345)  # three objects, if nothing cuts it


@pytest.fixture(scope="module")
def bridge(start_bridge, tmp_path_factory):
    with watched_bucket(tmp_path_factory.mktemp("bucket") / "seaweed"):
        bridge = start_bridge(
            api_processes="1", store="s3://files/some/prefix", store_redirect="on", store_object_bytes=str(8 * MIB)
        )
        yield bridge
        bridge.stack.stop()


@pytest.mark.parametrize("cuts", [0, 3])
def test_what_came_in_several_objects_is_soon_given_by_the_store(bridge, tmp_path, cuts):
    client = bridge.client()
    (tmp_path / "talk.mp4").write_bytes(FILE)
    with FaultProxy.before(bridge.url) as proxy, Client(proxy.url(bridge.url), client.key) as sdk:
        for cut in range(cuts):
            proxy.cut_after(3 * MIB + cut * 100_000, "up")
        job_id = sdk.submit(tmp_path / "talk.mp4", "audio").job_id
        assert proxy.stats.faults == cuts
    job = client.claim("audio")
    assert job["job_id"] == job_id
    token = {"X-Lease-Token": job["lease_token"]}

    def get(**headers):
        return client.get(job["source_file_url"], headers={**token, **headers}, allow_redirects=False)

    told = wait_until(lambda: answer if (answer := get()).status_code == 307 else None, "the store to give it")
    assert told.headers["ETag"] == f'"{hashlib.sha256(FILE).hexdigest()}"'
    assert requests.get(told.headers["Location"], timeout=60).content == FILE
    part = get(Range="bytes=8388600-8388620")
    assert part.status_code == 307
    ranged = requests.get(part.headers["Location"], headers={"Range": "bytes=8388600-8388620"}, timeout=60)
    assert (ranged.status_code, ranged.content) == (206, FILE[8388600:8388621])
    ok(client.result(job))
    [swept] = bridge.sql("SELECT total FROM sweeps WHERE name = 'join_uploads'")
    assert swept.total >= 1
