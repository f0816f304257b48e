"""The worker's checkpoints that are files: uploaded by itself, through cuts, and given to the attempt after a kill."""

import hashlib
import os

from bridge_worker.client import BridgeClient
from bridge_worker.download import CheckpointDownload
from bridge_worker.held import Held
from bridge_worker.keeping import CheckpointFile
from bridge_worker.send_kept import send_checkpoint
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until
from tests.system.worker_process import Worker

FILE, TEXT = bytes(range(256)) * 12288, "Größe ✓\n" * 300_000  # 3 MiB each
HANDLER = """
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


def test_after_a_kill_the_next_attempt_has_exactly_what_was_saved(bridge, client, tmp_path):
    (tmp_path / "kept_handler.py").write_text(HANDLER)
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
        assert result["content"] == hashlib.sha256(FILE if file else TEXT.encode()).hexdigest()
        assert result["metadata"] == {"attempt": 2}


def test_what_a_cut_leaves_of_an_upload_and_of_a_download_is_not_sent_again(bridge, client, tmp_path):
    content = os.urandom(25_000_000)
    client.create("cut")
    with FaultProxy.before(bridge.url) as proxy:
        worker = BridgeClient(proxy.url(bridge.url), bridge.key(client.tenant, ("work",)), "w1")
        (claim,) = worker.poll("c1", ["cut"], 1, 20, 60)
        held = Held(claim)
        (tmp_path / "state").write_bytes(content)
        held.kept.replace(CheckpointFile(tmp_path / "state", "application/octet-stream"))
        cut = proxy.cut_after(9_000_000, "up", times=2)
        while held.kept.has_checkpoint():  # as after each heartbeat
            send_checkpoint(worker, held)
        assert cut.count == 2
        worker.release(claim)
        (again,) = BridgeClient(proxy.url(bridge.url), client.key, "w2").poll("c2", ["cut"], 1, 20, 60)
        assert again.checkpoint_uploaded
        cut = proxy.cut_after(9_000_000, "down", times=2)
        reader = BridgeClient(proxy.url(bridge.url), client.key, "w2")
        assert CheckpointDownload(reader, Held(again), tmp_path).fetch().read_bytes() == content
        assert cut.count == 2
