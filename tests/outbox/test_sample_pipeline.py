"""The sample pipeline asks until it is answered, and tells a repetition from another outcome."""

import hashlib
import json
import os
import subprocess
import sys
import uuid

import pytest
import redis

from bridge import names
from bridge.cli.local.checkout import ROOT
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until

PIPELINE = ROOT / "examples" / "pipeline"


def environment(tmp_path, broker="redis://127.0.0.1:1/0"):
    outside = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    return {**outside, "PIPELINE_BROKER_URL": broker, "PIPELINE_STATE": str(tmp_path / "pipeline.sqlite3")}


WORKER = [sys.executable, "-m", "celery", "-A", "pipeline_app", "worker", "-Q", "pipeline", "-c", "1",
          "--without-gossip", "--without-mingle"]  # fmt: skip


def enqueue(tmp_path, broker, *arguments):
    return subprocess.Popen(
        [sys.executable, str(PIPELINE / "enqueue.py"), *arguments], cwd=PIPELINE, text=True,
        env=environment(tmp_path, broker), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_a_create_that_the_broker_lost_is_asked_for_again_also_by_the_next_process(own_bridge, tmp_path):
    bridge = own_bridge(celery=False, beat=False, api_processes="1")
    broker = bridge.settings.require("broker_url")
    file = bridge.files / "report.pdf"
    file.write_bytes(b"source")
    asker = enqueue(tmp_path, broker, "--wait", "2", str(file))
    with redis.Redis.from_url(broker) as direct:
        wait_until(lambda: direct.llen(names.QUEUE), "the message")
        direct.flushdb()  # lost, as far as anybody can know
        wait_until(lambda: direct.llen(names.QUEUE), "it to be asked for again")
        asker.kill()
        asker.communicate()
        direct.flushdb()
    again = enqueue(tmp_path, broker, "--wait", "2", f"document={bridge.files / 'none.pdf'}")
    bridge.stack.start_processes(api=False, beat=False)
    said, errors = again.communicate(timeout=120)
    [(job_id, key)] = [(str(row.id), row.idempotency_key) for row in bridge.sql("SELECT * FROM remote_jobs")]
    assert said.split("\t") == [job_id, "document", key, f"{file}\n"]
    assert "none.pdf: not accepted: The request was refused. source_file_path: No such file." in errors
    assert again.returncode == 1


RECORD = """
import json, sys
from pipeline_app import record, state
told = json.loads(sys.argv[1])
print(json.dumps([record(one) for one in told]))
with state() as connection:
    print(json.dumps(connection.execute("SELECT n, status, content, deliveries, recorded_at FROM receipts").fetchall()))
"""


def run(tmp_path, code, *arguments, **reached):
    """Return what this code, which has the pipeline's modules, prints."""
    around = {**environment(tmp_path), "PYTHONPATH": str(PIPELINE), **reached}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=around, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def recorded(tmp_path, *told):
    job_id = str(uuid.UUID(int=1))
    fixed = {"job_id": job_id, "n": 1, "ingestion_task_id": "t", "content_type": "audio", "success": True}
    outcomes = json.dumps([{**fixed, "status": "completed", **one} for one in told])
    return [json.loads(line) for line in run(tmp_path, RECORD, outcomes).splitlines()]


def test_an_outcome_that_was_recorded_later_takes_the_place_of_an_earlier_one_and_no_other_does(tmp_path):
    first, later = "2026-11-27T01:00:00+00:00", "2026-11-27T01:00:00.500000+00:00"
    deliveries, rows = recorded(
        tmp_path,
        {"content": "before the restore", "recorded_at": first},
        {"content": "before the restore", "recorded_at": first},
        {"content": "after it", "recorded_at": later},
        {"content": "before the restore", "recorded_at": first},
    )
    assert deliveries == [1, 2, 3, 4]
    assert rows == [[1, "completed", "after it", 4, later]]


def test_a_job_that_nobody_asks_for_is_claimed_and_converted_by_the_pipeline_itself(bridge, client, tmp_path):
    file = bridge.files / f"{uuid.uuid4()}.html"
    file.write_text("<html><body><h1>Minutes</h1><p>All agreed.</p></body></html>")
    job_id = client.create("web", source_file_path=str(file))
    twice = f"from local_fallback import convert_here; print(convert_here('{job_id}'), convert_here('{job_id}'))"
    done = run(tmp_path, twice, PIPELINE_BRIDGE_URL=bridge.url, PIPELINE_BRIDGE_KEY=client.key)
    assert done.split() == ["True", "False"]
    assert "All agreed." in ok(client.get(f"{job_id}/result"))["content"]


TEXT_OF = """
import hashlib, json, sys
from results import Broken, save, text_of
from pathlib import Path
outcome = json.loads(sys.argv[1])
text = text_of(outcome)
print(len(text), hashlib.sha256(text.encode()).hexdigest(), text_of({"content": "inline", "result_url": None}))
try:
    save(outcome["result_url"], "0" * 64, Path("wrong"))
except Broken:
    print(Path("wrong").exists())
"""


def test_a_text_that_an_outcome_only_names_is_fetched_through_cuts(bridge, client, tmp_path):
    job_id = client.create("long")
    text = "Größe ✓\n" * 400_000
    ok(client.result(client.claim("long"), content=text))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    outcome = {"content": None, "result_url": f"/api/v1/remote-jobs/{job_id}/result", "result_sha256": sha256}
    with FaultProxy.before(bridge.url) as proxy:
        cut = proxy.cut_after(1_500_000, "down", times=2)
        reached = {"PIPELINE_BRIDGE_URL": proxy.url(bridge.url), "PIPELINE_BRIDGE_KEY": client.key}
        done = run(tmp_path, TEXT_OF, json.dumps(outcome), **reached)
    assert cut.count == 2
    assert done.split() == [str(len(text)), sha256, "inline", "False"]
