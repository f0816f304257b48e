"""Each route of the OpenAPI document, asked about the worst that was ever stored: its answer has the bound of its kind.

A route that is added is asked at once; only those named here may answer more than ORDINARY.
"""

import json
from typing import Any

import pytest

from bridge.admission.keys import prefix_of
from bridge.insight.gauges import MOST_TYPES, OTHER
from bridge.jobs.claim import MOST_BYTES as CLAIMED
from bridge.workers.registry import Worker, WorkerRegistry
from tests.admission.test_authorization import Sender
from tests.support.client import ok

MEGABYTE = 2**20
BODY = 8 * MEGABYTE  # the largest document
ORDINARY = 4 * MEGABYTE
# Documents are given whole to who asks for them.
LARGER = {
    "/api/v1/remote-jobs/{job_id}/result": 2 * BODY + ORDINARY,  # content and metadata
    "/api/v1/remote-jobs/{job_id}": 2 * BODY + ORDINARY,  # task options and metadata
    "/api/v1/remote-jobs": 2 * BODY + ORDINARY,  # those of the job that ends the page
    "/api/v1/remote-jobs/poll": CLAIMED + 2 * BODY + ORDINARY,  # the first job's task options stand there twice
}
REFUSAL = 64 * 1024  # any answer that is not a success
HOSTILE = 100_000  # bytes
DOCUMENT = f"CAST('{{\"x\": \"' || repeat('a', {BODY - 100}) || '\"}}' AS json)"


@pytest.fixture(scope="module")
def alone(start_bridge):
    return start_bridge(max_body_bytes=str(BODY), celery=False, beat=False)


@pytest.fixture(scope="module")
def client(alone):
    return alone.client()


@pytest.fixture(scope="module")
def burdened(alone, client):
    """One job with the longest history and the largest documents, beside thousands of everything that is listed."""
    job = client.held("burdened")
    ok(client.result(job))
    who = {"id": job["job_id"], "tenant": client.tenant}
    text = "E'\\x01'"
    alone.sql(
        f"UPDATE remote_jobs SET task_options = {DOCUMENT}, attempt = 300, error_message = repeat({text}, 8000000),"
        f" message = repeat({text}, 500), result_data = json_build_object('metadata', {DOCUMENT}) WHERE id = :id",
        id=job["job_id"],
    )
    alone.sql(f"UPDATE job_results SET content = repeat('\"', {BODY // 2 - 100}) WHERE job_id = :id", id=job["job_id"])
    history(alone, job["job_id"], text)
    alone.sql(
        "INSERT INTO continuations (job_id, n, tenant, kwargs, created_at, next_at, last_error)"
        f" SELECT :id, n, :tenant, '{{}}', now(), now(), repeat({text}, 2000) FROM generate_series(1000, 2000) n",
        **who,
    )
    _crowd(alone, client, text)
    return job["job_id"]


def history(bridge, job_id, text):
    """Give a job the longest history, in texts of this one, repeated."""
    bridge.sql(
        "INSERT INTO job_attempts (job_id, attempt, worker_id, key_id, lease_token, claimed_at, ended_at, how, why)"
        f" SELECT job_id, n, repeat({text}, 255), key_id, 'x', now(), now(), 'failed', repeat({text}, 200000)"
        " FROM job_attempts, generate_series(2, 300) n WHERE job_id = :id",
        id=job_id,
    )
    bridge.sql(
        "INSERT INTO job_refusals (job_id, attempt, key_id, refused_at, code, reason)"
        f" SELECT job_id, n, key_id, now(), 'lease_lost', repeat({text}, 200000)"
        " FROM job_attempts, generate_series(1, 300) n WHERE job_id = :id AND attempt = 1",
        id=job_id,
    )
    bridge.sql(
        "INSERT INTO job_requests (job_id, asked_at, what, key_id) SELECT job_id, now(), 'retry', key_id"
        " FROM job_attempts, generate_series(1, 500) n WHERE job_id = :id AND attempt = 1",
        id=job_id,
    )


def _crowd(alone, client, text):
    """Jobs, workers, pauses, keys and content types without number."""
    ok(client.post("batch", {"jobs": [client.fields("crowd") for _ in range(1000)]}))
    alone.sql(
        f"UPDATE remote_jobs SET error_message = repeat({text}, 8000), ingestion_task_id = repeat({text}, 255),"
        f" message = repeat({text}, 500), source_file_path = repeat({text}, 4096)"
        " WHERE tenant = :tenant AND content_type = 'crowd'",
        tenant=client.tenant,
    )
    types = [f"{n:02}{'t' * 48}" for n in range(32)]
    seen = WorkerRegistry(alone.settings.require("redis_url"), alone.settings.redis_prefix, "test")
    key_id = alone.sql("SELECT id FROM api_keys WHERE prefix = :prefix", prefix=prefix_of(client.key))[0].id
    for n in range(10_000):
        seen.note(client.tenant, Worker(key_id, f"{n:05}" + "\x01" * 250), types, types)
    seen.write()
    alone.sql(
        "INSERT INTO worker_pauses (tenant, worker_id, by, reason, paused_at)"
        f" SELECT :tenant, lpad(CAST(n AS text), 5, '0') || repeat({text}, 250), 'operator', repeat({text}, 500), now()"
        " FROM generate_series(0, 2999) n",
        tenant=client.tenant,
    )
    alone.sql(
        "INSERT INTO api_keys (id, prefix, secret_hash, name, tenant, scopes, content_types)"
        f" SELECT gen_random_uuid(), 'crowd' || n, '', repeat({text}, 100), :tenant, '{{work}}',"
        " ARRAY(SELECT lpad(CAST(m AS text), 50, 't') FROM generate_series(1, 100) m) FROM generate_series(1, 1000) n",
        tenant=client.tenant,
    )
    alone.sql(
        "INSERT INTO job_counts (tenant, content_type, status, jobs)"
        " SELECT :tenant, lpad(CAST(n AS text), 50, 't'), s, 1 FROM generate_series(1, 5000) n,"
        " unnest(ARRAY['pending', 'processing', 'completed', 'failed']) s",
        tenant=client.tenant,
    )


@pytest.mark.slow
def test_every_route_answers_within_its_bound(client, document, operations, burdened):
    sender, answered = Sender(document, client.source()), {}
    assert set(LARGER) <= {path for _, path in operations}
    for method, path in sorted(operations, key=lambda one: one[0]):  # those that change something come last
        operation = operations[method, path]
        answer = sender.send(client, method, path, operation, job_id=burdened)
        bound = LARGER.get(path, ORDINARY) if answer.status_code < 300 else REFUSAL
        assert len(answer.content) <= bound, (method, path, answer.status_code, len(answer.content))
        answered[method, path] = answer.status_code
    others = ("workers", "keys", "continuations", "remote-jobs/{job_id}/explain")
    for path in (*LARGER, *(f"/api/v1/{other}" for other in others), "/metrics"):
        assert answered["GET", path] == 200, path


@pytest.mark.parametrize(
    ("path", "largest"), [("remote-jobs", 500), ("workers", 200), ("keys", 200), ("continuations", 500)]
)
def test_the_largest_pages_are_bounded_and_lead_on(client, burdened, path, largest):
    answer = client.get(f"/api/v1/{path}", params={"limit": largest})
    assert len(answer.content) <= ORDINARY
    assert ok(answer)["next_cursor"]


def test_a_job_with_everything_is_given_whole_and_no_more(client, burdened):
    job = client.get(burdened)
    assert len(job.content) > 2 * (BODY - 100)
    assert len(ok(job)["attempts"]) == 50
    result = client.get(f"{burdened}/result")
    assert len(ok(result)["content"]) == BODY // 2 - 100


@pytest.mark.slow
def test_refusals_of_hostile_requests_are_small_on_every_route(client, document, operations, burdened):
    sender = Sender(document, client.source())
    unknown = json.dumps({f"name-{n}-{'x' * 10}": n for n in range(25_000)})
    name = "\\u0001" * 256
    deep = f'{{"{name}":' * 60 + "[" + "9007199254740993," * 1000 + "1]" + "}" * 60
    wrong = json.dumps({"jobs": [{"a" * 200: n} for n in range(1000)]})
    for (method, path), operation in operations.items():
        asked = path.replace("{job_id}", burdened)
        long: dict[str, Any] = {
            "params": {"x" * 1000: "y" * 3000, "cursor": "z" * 2000},
            "headers": {"X-Lease-Token": "t" * 4000},
        }
        bodies = (unknown, deep, wrong) if operation.get("requestBody") else ()
        for sent in [long, *({"data": body} for body in bodies)]:
            headers = {"Content-Type": "application/json", **sent.get("headers", {})}
            answer = client.request(method, asked, **{**sent, "headers": headers})
            if answer.status_code >= 300:
                assert len(answer.content) <= HOSTILE, (method, path, answer.status_code, len(answer.content))
            else:
                assert len(answer.content) <= LARGER.get(path, ORDINARY)
        again = sender.send(client, method, path, operation)
        assert again.status_code < 500


def test_content_types_that_are_made_up_share_one_label(alone, client, burdened):
    for start in range(0, 900, 300):
        ok(client.post("batch", {"jobs": [client.fields(f"{'m' * 40}{n}") for n in range(start, start + 300)]}))
    shown = client.get("statistics")
    assert len(shown.content) < 200_000
    assert ok(shown)["content_types"] >= 5900
    assert len(ok(shown)["by_content_type"]) == 200
    text = client.get("/metrics").text
    own = {line.split('"')[1] for line in text.splitlines() if line.startswith("bridge_jobs_created_total{")}
    assert len(own) <= MOST_TYPES + 1
    assert OTHER in own
    assert len(text) < 200_000
