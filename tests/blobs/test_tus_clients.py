"""tuspy and tus-js-client, as they are published, upload through a network that cuts them off.

UPLOAD_MIB says how large the file is (`make clients`: 64); with 1024 this is what the documents promise.
"""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.memory_peak import Peak, processes
from tests.support.seaweed import bucket
from tests.support.tus import offset

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]
MIB = 1024 * 1024
SIZE = int(os.environ.get("UPLOAD_MIB", "64")) * MIB
CUTS = 10
CHUNK = 16 * MIB  # of both clients: each is a request, and perhaps a connection
OVER_IDLE_MIB = 64
JS = Path(__file__).parent / "tus_js"


@pytest.fixture(scope="module", params=["directory", "bucket"])
def ours(request, start_bridge, tmp_path_factory):
    """Yield a bridge of one process over either store."""
    options = {"celery": False, "beat": False, "api_processes": "1"}
    if request.param == "directory":
        bridge = start_bridge(**options)
        yield bridge
        bridge.stack.stop()
        return
    with bucket(tmp_path_factory.mktemp("bucket") / "seaweed") as environment, pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        bridge = start_bridge(store="s3://files/uploads", **options)
        yield bridge
        bridge.stack.stop()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Return a file of random bytes, and its SHA-256."""
    path = tmp_path_factory.mktemp("file") / "large.bin"
    whole = hashlib.sha256()
    with path.open("wb") as out:
        for _ in range(SIZE // MIB):
            piece = os.urandom(MIB)
            whole.update(piece)
            out.write(piece)
    return path, whole.hexdigest()


def by_tuspy(url, key, path):
    tusclient = pytest.importorskip("tusclient.client")
    client = tusclient.TusClient(f"{url}/api/v1/uploads", headers={"Authorization": f"Bearer {key}"})
    uploader = client.uploader(str(path), chunk_size=CHUNK, retries=60, retry_delay=0.2)
    uploader.upload()
    return uploader.url


def by_tus_js(url, key, path):
    if not (JS / "node_modules").is_dir():
        pytest.skip("tus-js-client is not installed: make clients")
    command = ["node", str(JS / "upload.mjs"), f"{url}/api/v1/uploads", key, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("send", [by_tuspy, by_tus_js])
def test_a_large_file_comes_whole_however_often_the_connection_is_cut(ours, file, send):
    path, sha256 = file
    client = ours.client()
    ok(client.get(""))
    workers = processes(ours)
    idle = {worker.pid: worker.memory_info().rss for worker in workers}
    peak = Peak(workers)
    with FaultProxy.before(ours.url) as proxy, peak:
        for _ in range(CUTS):
            proxy.cut_after(random.randint(SIZE // 128, min(SIZE // 15, CHUNK - MIB)), "up")
        place = send(proxy.url(ours.url), client.key, path)
        assert proxy.stats.faults == CUTS
    place = place[place.index("/api/") :]
    assert offset(client, place) == SIZE
    assert ok(client.get(place))["sha256"] == sha256
    over = max((peak.of[pid] - before) / MIB for pid, before in idle.items())
    print(f"{send.__name__}: {SIZE // MIB} MiB, {CUTS} cuts, {over:.0f} MiB of memory over idle")
    assert over <= OVER_IDLE_MIB
