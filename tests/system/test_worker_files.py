"""The worker's results that are files: uploaded by itself, through cuts, and given up with its lease."""

import json
import os

import pytest

from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.result_files import Files
from bridge_worker.uploads import Sending
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until
from tests.system.worker_process import Worker

TEXT = "Größe ✓\n" * 1_200_000
HANDLER = """
from pathlib import Path
from bridge_worker import Result

def handle(job, path):
    if job.task_options.get("inline"):
        return Result("Größe ✓\\n" * 1_200_000)
    Path("text").write_text("Größe ✓\\n" * 1_200_000)
    return Result(path="text", metadata={"pages": 2}, artifacts={"page 1.png": b"1", "source.bin": path})
"""


def test_a_handlers_files_come_to_the_bridge(bridge, client, tmp_path):
    (tmp_path / "files_handler.py").write_text(HANDLER)
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
    asked, call = [], worker.tus

    def cut_short(claim, method, *rest):
        asked.append(method)
        if asked.count("PATCH") == 1 and method == "PATCH":
            raise CallFailed("409 CONFLICT", status=409)
        return call(claim, method, *rest)

    monkeypatch.setattr(worker, "tus", cut_short)
    named = Sending(worker, mine).send(Files(text=tmp_path / "text"))
    assert asked == ["POST", "HEAD", "PATCH", "HEAD", "PATCH"]
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
