"""The sample pipeline outlives a broker that answers and refuses, and takes the next outcome when that is over."""

import subprocess
import uuid
from pathlib import Path

import pytest
import redis
from celery import Celery

from tests.mirror.test_refusing_redis import REFUSALS, a_bad_queue
from tests.outbox.test_sample_pipeline import PIPELINE, WORKER, environment
from tests.support.waiting import wait_until

RECEIVE, LOST = "sample_pipeline.receive", "onnection to broker lost"


@pytest.mark.slow
def test_the_sample_pipeline_outlives_a_broker_that_refuses(own_servers, tmp_path):
    url = own_servers(postgres=False).redis_url
    client = redis.Redis.from_url(url, decode_responses=True)
    log, worker = tmp_path / "pipeline.log", [*WORKER, "-l", "info"]
    with log.open("wb") as out, subprocess.Popen(
        worker, cwd=PIPELINE, env=environment(tmp_path, url), stdout=out, stderr=out, start_new_session=True
    ) as pipeline:  # fmt: skip
        try:
            wait_until(lambda: "ready." in log.read_text(), "the pipeline")
            for refusals, refusal in enumerate(["READONLY", "NOREPLICAS", "a bad queue"]):
                lost = log.read_text().count(LOST)
                with REFUSALS[refusal](client) if refusal in REFUSALS else a_bad_queue(client, "pipeline"):
                    opened = client.info("stats")["total_connections_received"]
                    wait_until(lambda lost=lost: log.read_text().count(LOST) > lost, f"{refusal} to be met")
                    if refusal == "READONLY":  # it tries several times a second, and each try leaves nothing behind
                        wait_until(lambda opened=opened: connections(client) > opened + 60, "many tries")
                        assert len([*Path(f"/proc/{pipeline.pid}/fd").iterdir()]) < 40
                    assert pipeline.poll() is None
                deliver(url)
                done = lambda n=refusals: log.read_text().count("completed, 4 characters") > n  # noqa: E731
                wait_until(done, f"the next outcome after {refusal}")
                assert pipeline.poll() is None
        finally:
            pipeline.terminate()
            pipeline.wait(60)


def connections(client):
    try:
        return client.info("stats")["total_connections_received"]
    except redis.RedisError:
        return 0


def deliver(url):
    told = {"job_id": str(uuid.uuid4()), "ingestion_task_id": "t", "content_type": "audio", "status": "completed",
            "success": True, "content": "text", "n": 1}  # fmt: skip
    sender = Celery(broker=url)
    sender.send_task(RECEIVE, kwargs=told, queue="pipeline", ignore_result=True)
    sender.close()
