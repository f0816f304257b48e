"""A result as long as RESULT_MIB says (`make clients`: 64) and 500 artifacts, from the worker to who fetches them.

The documents promise it with 2048.
"""

import hashlib
import json
import os
import time

import pytest

from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.result_files import Files
from bridge_worker.uploads import Sending
from tests.support.client import ok
from tests.support.memory_peak import Peak, processes

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]
MIB = 1024 * 1024
SIZE = int(os.environ.get("RESULT_MIB", "64")) * MIB
ARTIFACTS = 500
OVER_IDLE_MIB = 64


@pytest.fixture(scope="module")
def ours(start_bridge):
    bridge = start_bridge(celery=False, beat=False, api_processes="1")
    yield bridge
    bridge.stack.stop()


def test_a_large_text_and_many_artifacts_go_the_whole_way(ours, tmp_path):
    piece = ("Größe ✓ " * 100_000).encode()
    whole = hashlib.sha256()
    with (tmp_path / "text").open("wb") as out:
        for _ in range(SIZE // len(piece)):
            out.write(piece)
            whole.update(piece)
    length = (tmp_path / "text").stat().st_size
    pages = {f"page-{n:04}.png": os.urandom(20_000) for n in range(ARTIFACTS)}
    files = Files(text=tmp_path / "text")
    for name, content in pages.items():
        (tmp_path / name).write_bytes(content)
        files.artifacts.append((name, "image/png", tmp_path / name))
    client = ours.client()
    client.create("large")
    worker = BridgeClient(ours.url, ours.key(client.tenant, ("work",)), "w1")
    (claim,) = worker.poll("c1", ["large"], 1, 20, 600)
    workers = processes(ours)
    idle = {one.pid: one.memory_info().rss for one in workers}
    peak, took = Peak(workers), [time.monotonic()]
    with peak:
        named = Sending(worker, Held(claim)).send(files)
        took.append(time.monotonic())
        worker.submit(claim, json.dumps({"success": True, **named}).encode())
        took.append(time.monotonic())
        got = hashlib.sha256()
        with client.get(f"{claim.job_id}/result", headers={"Accept": "text/plain"}, stream=True) as answer:
            for part in answer.iter_content(MIB):
                got.update(part)
        took.append(time.monotonic())
        with client.get(f"{claim.job_id}/result", stream=True) as answer:
            as_json = sum(len(part) for part in answer.iter_content(MIB))
        took.append(time.monotonic())
        query, listed = {"limit": 300}, []
        while query["limit"]:
            page = ok(client.get(f"{claim.job_id}/artifacts", params=query))
            listed += page["items"]
            query = {"limit": 300 if page["next_cursor"] else 0, "cursor": page["next_cursor"]}
        for name, content in pages.items():
            assert client.get(f"{claim.job_id}/artifacts/{name}").content == content
        took.append(time.monotonic())
    assert got.digest() == whole.digest()
    assert as_json > length
    assert client.job(claim.job_id)["result"] == {"size": length, "sha256": whole.hexdigest()}
    assert [one["name"] for one in listed] == sorted(pages)
    inside = ours.sql("SELECT pg_total_relation_size('job_results') + pg_total_relation_size('remote_jobs')")[0][0]
    assert inside < MIB
    over = max((peak.of[pid] - before) / MIB for pid, before in idle.items())
    steps = zip(("uploaded", "accepted", "text", "JSON", "artifacts"), took[1:], took, strict=False)
    told = ", ".join(f"{what} {after - before:.1f} s" for what, after, before in steps)
    print(f"{length // MIB} MiB and {ARTIFACTS} artifacts: {told}; {over:.0f} MiB of memory over idle")
    assert over <= OVER_IDLE_MIB
