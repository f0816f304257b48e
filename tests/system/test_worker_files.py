"""The worker's results, and files of them and of its checkpoints: uploaded by itself, through cuts, up to its end."""

import hashlib
import json
import os
from typing import Any

import pytest

from bridge_worker.answers import Answer, CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.download import CheckpointDownload
from bridge_worker.held import Held
from bridge_worker.keeping import CheckpointFile
from bridge_worker.result_files import Files
from bridge_worker.send_files import Sending
from bridge_worker.send_kept import send_checkpoint
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until
from tests.system.worker_process import Worker

TEXT = "Größe ✓\n" * 1_200_000
RESULTS = """
from pathlib import Path
from bridge_worker import Result

def handle(job, path):
    if job.task_options.get("inline"):
        return Result("Größe ✓\\n" * 1_200_000)
    Path("text").write_text("Größe ✓\\n" * 1_200_000)
    return Result(path="text", metadata={"pages": 2}, artifacts={"page 1.png": b"1", "source.bin": path})
"""
FILE, KEPT = bytes(range(256)) * 12288, "Größe ✓\n" * 300_000  # 3 MiB each
CHECKPOINTS = """
import hashlib, time
from pathlib import Path
from bridge_worker import Result

def handle(job, path):
    state = Path(f"state-{job.id}")
    if job.attempt == 1:
        state.write_bytes(bytes(range(256)) * 12288)
        job.save_checkpoint(state if job.task_options["file"] else "Größe ✓\\n" * 300_000)
        state.write_bytes(b"after it was saved")
        while True:
            time.sleep(0.05)
    found = job.checkpoint_path.read_bytes() if job.task_options["file"] else job.checkpoint.encode()
    return Result(hashlib.sha256(found).hexdigest(), {"attempt": job.attempt})
"""


def test_a_handlers_files_come_to_the_bridge(bridge, client, tmp_path):
    (tmp_path / "files_handler.py").write_text(RESULTS)
    jobs = [client.create("files", task_options={"inline": inline}) for inline in (False, True)]
    key = bridge.key(client.tenant, ("work",))
    with Worker(bridge, key, tmp_path, "w", "--handler", "files=files_handler:handle", "--lease", "10"):
        wait_until(lambda: all(client.status(job) == "completed" for job in jobs), "the results")
    for job in jobs:
        assert ok(client.get(f"{job}/result"))["content"] == TEXT
        assert client.job(job)["result"]["sha256"] is not None  # it was uploaded
    listed = ok(client.get(f"{jobs[0]}/artifacts"))["items"]
    assert [(one["name"], one["media_type"], one["size"]) for one in listed] == [
        ("page 1.png", "image/png", 1), ("source.bin", "application/octet-stream", 6),
    ]  # fmt: skip
    assert client.get(f"{jobs[0]}/artifacts/source.bin").content == b"source"


@pytest.fixture
def held(bridge, client):
    """Yield a claim of the worker's client, whose calls go through a network that breaks."""
    client.create("cut")
    with FaultProxy.before(bridge.url) as proxy:
        worker = BridgeClient(proxy.url(bridge.url), bridge.key(client.tenant, ("work",)), "w1")
        (claim,) = worker.poll("c1", ["cut"], 1, 20, 60)
        yield proxy, worker, Held(claim)


def test_an_upload_goes_on_where_the_connection_broke(client, held, tmp_path):
    proxy, worker, mine = held
    content = os.urandom(25_000_000)
    (tmp_path / "text").write_bytes(content)
    cut = proxy.cut_after(9_000_000, "up", times=2)
    files = Files(artifacts=[("a", "text/plain", tmp_path / "text"), ("empty", "text/plain", tmp_path / "empty")])
    (tmp_path / "empty").touch()
    named = Sending(worker, mine).send(files)
    assert cut.count == 2
    worker.submit(mine.claim, json.dumps({"success": True, **named}).encode())
    assert client.get(f"{mine.id}/artifacts/a").content == content
    assert client.get(f"{mine.id}/artifacts/empty").content == b""


def test_an_upload_goes_on_after_a_refusal_whose_reason_was_not_read(client, held, tmp_path, monkeypatch):
    """The bridge refuses an offset before it reads the bytes; the connection may end with the head of its answer."""
    _, worker, mine = held
    (tmp_path / "text").write_bytes(b"x" * 3_000_000)
    asked, call = [], worker.open

    def cut_short(claim, request, data):
        asked.append(request.method)
        if asked.count("PATCH") == 1 and request.method == "PATCH":
            raise CallFailed("409 CONFLICT", status=409)
        return call(claim, request, data)

    monkeypatch.setattr(worker, "open", cut_short)
    named = Sending(worker, mine).send(Files(text=tmp_path / "text"))
    assert asked == ["POST", "PATCH", "GET", "PATCH", "GET"]
    worker.submit(mine.claim, json.dumps({"success": True, **named}).encode())
    assert ok(client.get(f"{mine.id}/result"))["content"] == "x" * 3_000_000


def test_an_upload_ends_with_its_lease(client, held, tmp_path):
    _, worker, mine = held
    (tmp_path / "text").write_bytes(b"x" * 3_000_000)
    ok(client.post(f"{mine.id}/cancel"))
    with pytest.raises(CallFailed) as refused:
        Sending(worker, mine).send(Files(text=tmp_path / "text"))
    assert refused.value.code == "already_finished"
    mine.hear(refused.value)
    assert mine.over.is_set()


def test_what_a_cut_leaves_of_an_upload_and_of_a_download_is_not_sent_again(bridge, client, held, tmp_path):
    proxy, worker, mine = held
    content = os.urandom(25_000_000)
    (tmp_path / "state").write_bytes(content)
    mine.kept.replace(CheckpointFile(tmp_path / "state", "application/octet-stream"))
    cut = proxy.cut_after(9_000_000, "up", times=2)
    while mine.kept.has_checkpoint():  # as after each heartbeat
        send_checkpoint(worker, mine)
    assert cut.count == 2
    worker.release(mine.claim)
    reader = BridgeClient(proxy.url(bridge.url), client.key, "w2")
    (again,) = reader.poll("c2", ["cut"], 1, 20, 60)
    assert again.checkpoint_uploaded
    cut = proxy.cut_after(9_000_000, "down", times=2)
    assert CheckpointDownload(reader, Held(again), tmp_path).fetch().read_bytes() == content
    assert cut.count == 2


def test_after_a_kill_the_next_attempt_has_exactly_what_was_saved(bridge, client, tmp_path):
    (tmp_path / "kept_handler.py").write_text(CHECKPOINTS)
    key = bridge.key(client.tenant, ("work",))
    jobs = {client.create("kept", task_options={"file": file}): file for file in (True, False)}
    mine = "WHERE tenant = :t AND status = 'processing'"
    told = (bridge, key, tmp_path, "w", "--handler", "kept=kept_handler:handle", "--lease", "10", "--concurrency", "2")
    with Worker(*told):
        saved = f"SELECT count(*) = 2 FROM remote_jobs {mine} AND checkpoint_upload IS NOT NULL"
        wait_until(lambda: bridge.sql(saved, t=client.tenant)[0][0], "the checkpoints")
    bridge.sql(f"UPDATE remote_jobs SET lease_expires_at = now() {mine}", t=client.tenant)
    wait_until(lambda: all(client.status(job) == "pending" for job in jobs), "the ends of the leases")
    bridge.sql("UPDATE remote_jobs SET available_at = now(), queued_at = now() WHERE tenant = :t", t=client.tenant)
    with Worker(*told):
        wait_until(lambda: all(client.status(job) == "completed" for job in jobs), "the results")
    for job, file in jobs.items():
        result = ok(client.get(f"{job}/result"))
        assert result["content"] == hashlib.sha256(FILE if file else KEPT.encode()).hexdigest()
        assert result["metadata"] == {"attempt": 2}


def encoded(token: str | None, success: Any = True) -> bytes:
    return json.dumps({"success": success, "content": "text", "lease_token": token}).encode()


def test_the_worker_hears_what_each_result_came_to(bridge, client):
    worker = BridgeClient(bridge.url, bridge.key(client.tenant, ("work",)), "w1")
    for _ in range(3):
        client.create()
    done, lost, broken = worker.poll("c1", ["audio"], 3, 20, 60)
    sent = [(done, encoded(done.lease_token)), (lost, encoded("x" * 43)), (broken, encoded(broken.lease_token, 1))]
    told = worker.submit_many(sent)
    kinds = [(type(one), one.job_status) for one in told]
    assert kinds == [(Answer, "completed"), (CallFailed, "processing"), (CallFailed, "pending")]
    refusals = [one for one in told if isinstance(one, CallFailed)]
    assert [(one.status, one.code) for one in refusals] == [(409, "lease_lost"), (422, "validation")]
    assert ok(client.get(f"{done.job_id}/result"))["content"] == "text"
