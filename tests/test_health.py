"""/health, /healthz, /readyz and /metrics: what probes and Prometheus see, also while a server is away."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text

from tests.client import ok, refused
from tests.conftest import terminate_backends
from tests.waiting import wait_until


def metrics(client):
    """(name, labels) → value of every sample."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples = (sample for family in text_string_to_metric_families(answer.text) for sample in family.samples)
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_a_process_that_answers_is_alive(client, path):
    assert ok(client.get(path)) == {"status": "ok"}


def test_a_whole_bridge_is_ready(client):
    assert wait_until(lambda: ok(client.get("/readyz"))["status"] == "ok", "the mirror to be whole")
    assert ok(client.get("/readyz")) == {"status": "ok", "redis": "ok"}


def test_the_counters_go_up_with_what_happens(client):
    before = metrics(client)
    kind = ("content_type", "counted")
    for _ in range(2):
        client.create("counted")
    client.create("counted", max_retries=0)
    ok(client.result(client.claim("counted")))
    counted = metrics(client)

    def rise(name, *labels):
        return counted.get((name, *labels), 0) - before.get((name, *labels), 0)

    assert rise("bridge_jobs_created_total", kind) == 3
    assert rise("bridge_jobs_claimed_total", kind) == 1
    assert rise("bridge_results_accepted_total", ("status", "completed")) == 1
    assert counted["bridge_jobs", kind, ("status", "pending")] == 2
    assert ("bridge_jobs", kind, ("status", "processing")) not in counted


def test_the_gauges_tell_of_the_sweeps_the_outbox_and_the_parked_polls(client):
    def sweeps():
        return {labels[0][1] for name, *labels in metrics(client) if name == "bridge_sweep_age_seconds"}

    expected = {"expire_jobs", "release_due_jobs", "continue_ingestion", "reconcile_mirror"}
    wait_until(lambda: sweeps() >= expected, "beat to have run each sweep once")
    names = {name for name, *_ in metrics(client)}
    assert {
        "bridge_sweep_changed",
        "bridge_sweep_seconds",
        "bridge_continuations_waiting",
        "bridge_parked_polls",
    } <= names


def test_without_redis_the_bridge_is_degraded_and_still_takes_and_hands_out_jobs(own_bridge):
    bridge = own_bridge(celery=False, beat=False, api_processes="1", redis_url="redis://127.0.0.1:1/0")
    client = bridge.client()
    assert ok(client.get("/readyz")) == {"status": "degraded", "redis": "away"}
    job_id = client.create()
    job = client.claim()
    assert job["job_id"] == job_id
    assert ok(client.result(job))["status"] == "completed"


def test_a_mirror_without_its_epoch_is_degraded_until_it_is_rebuilt(own_bridge):
    bridge = own_bridge(celery=False, beat=False, api_processes="1")
    client = bridge.client()
    assert ok(client.get("/readyz")) == {"status": "degraded", "redis": "rebuilding"}
    job_id = client.create()
    assert client.claim()["job_id"] == job_id


def test_without_postgresql_the_bridge_is_not_ready_says_so_and_comes_back(own_bridge, servers):
    bridge = own_bridge(celery=False, beat=False, api_processes="1")
    client = bridge.client()
    job_id = client.create()
    name = bridge.engine.url.database
    server = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")

    bridge.engine.dispose()
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
    try:
        wait_until(lambda: client.get("/readyz").status_code == 503, "PostgreSQL to be missed")
        assert ok(client.get("/healthz")) == {"status": "ok"}
        for answer in (
            client.get("/readyz"),
            client.get("/metrics"),
            client.get(""),
            client.post("", client.fields()),
            client.poll(),
            client.get(f"{job_id}/status"),
        ):
            refused(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
    finally:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
        server.dispose()
    wait_until(lambda: client.get("/readyz").status_code == 200, "PostgreSQL to be back")
    assert client.status(job_id) == "pending"
    terminate_backends(bridge.settings.require("database_url"))
    wait_until(lambda: client.get(f"{job_id}/status").status_code == 200, "the cut connections to be replaced")
