"""The main job: a file goes from the pipeline through a worker and back to the pipeline."""

from bridge import names
from tests.support.client import ok
from tests.support.waiting import LATEST, wait_until


def test_a_job_created_over_http_is_claimed_downloaded_finished_and_recorded_for_the_pipeline(bridge, client):
    path = client.source(b"the sound")
    created = ok(client.post("", {**client.fields(), "source_file_path": path, "task_options": {"language": "de"}}))
    assert set(created) == {"job_id", "status", "created_at"}
    assert created["status"] == "pending"

    job = client.claim(lease=60)
    assert job["job_id"] == created["job_id"]
    assert job["attempt"] == 1
    assert job["task_options"] == {"language": "de"}
    assert job["source_file_url"] == f"{names.API_BASE}/{job['job_id']}/download"
    assert client.status(job["job_id"]) == "processing"

    source = client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]})
    assert source.content == b"the sound"
    answer = ok(client.result(job, content="what was said", metadata={"speakers": 2}, processing_time=1.5))
    assert answer == {"status": "completed", "ingestion_continued": True}

    assert ok(client.get(f"{job['job_id']}/result")) == {
        "content": "what was said",
        "metadata": {"speakers": 2},
        "processing_time": 1.5,
    }
    whole = client.job(job["job_id"])
    assert [(attempt["attempt"], attempt["how"]) for attempt in whole["attempts"]] == [(1, "completed")]
    recorded = bridge.sql("SELECT kwargs FROM continuations WHERE job_id = :id", id=job["job_id"])
    assert [row.kwargs["success"] for row in recorded] == [True]


def test_a_job_enqueued_by_celery_reaches_the_pipelines_own_task(bridge, client):
    kwargs = {**client.fields("video"), "source_file_path": client.source(), "tenant": client.tenant}
    answer = bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE).get(timeout=LATEST)
    job = client.claim("video")
    assert job["job_id"] == answer["job_id"]
    ok(client.result(job))
    sent = "SELECT sent_at FROM continuations WHERE job_id = :id AND sent_at IS NOT NULL"
    wait_until(lambda: bridge.sql(sent, id=job["job_id"]), "the continuation to be sent")
