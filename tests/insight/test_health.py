"""/health, /healthz, /readyz and /metrics: what probes and Prometheus see, also while a server is away."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge import names
from bridge.insight import gauges
from bridge.sweeps import swept
from tests.support.client import ok, refused
from tests.support.cut_off import no_connections, terminate_backends
from tests.support.waiting import wait_until


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


def test_the_gauges_tell_of_the_sweeps_the_outbox_and_the_parked_polls(client):
    def sweeps():
        return {labels[0][1] for name, *labels in metrics(client) if name == "bridge_sweep_age_seconds"}

    expected = {"expire_jobs", "release_due_jobs", "continue_ingestion", "reconcile_mirror"}
    wait_until(lambda: sweeps() >= expected, "beat to have run each sweep once")
    names = {name for name, *_ in metrics(client)}
    assert {
        "bridge_sweep_changed_total",
        "bridge_sweep_seconds",
        "bridge_continuations_waiting",
        "bridge_parked_polls",
    } <= names


def test_the_depth_and_the_oldest_claimable_job_are_told_and_not_one_that_waits_for_its_time(bridge, client):
    kind, later = ("content_type", "oldest"), ("content_type", "later")
    ids = [client.create("oldest") for _ in range(2)]
    client.create("later", available_at="2999-01-01T00:00:00+00:00")
    for _ in range(3):
        client.create("deep")
    client.claim("deep")
    bridge.sql("UPDATE remote_jobs SET queued_at = queued_at - interval '1000 s' WHERE id = :id", id=ids[1])
    bridge.client().create("oldest")  # another tenant's, which is younger
    told = metrics(client)
    assert 1000 <= told["bridge_oldest_claimable_seconds", kind] < 2000
    assert told["bridge_jobs", later, ("status", "pending")] == 1
    assert ("bridge_oldest_claimable_seconds", later) not in told
    depth = {labels[1][1]: jobs for (name, *labels), jobs in told.items()
             if name == "bridge_jobs" and labels[0] == ("content_type", "deep")}  # fmt: skip
    assert depth == {"pending": 2, "processing": 1}


def test_responses_are_counted_by_the_class_of_their_status(client):
    def count(status):
        return metrics(client).get(("bridge_responses_total", ("status", status)), 0)

    before, well = count("4xx"), count("2xx")
    refused(client.get("no-such-job"), 404)
    wait_until(lambda: count("4xx") > before, "the refusal to be told")
    wait_until(lambda: count("2xx") > well, "the answers before it, too")


def test_what_a_sweep_changed_is_summed_over_its_runs(runtime):
    for changed in (2, 3, 0):
        with swept(runtime.engine, "some") as run:
            run["changed"] = changed
    with runtime.engine.connect() as connection:
        [sweep] = gauges.sweeps(connection)
    assert (sweep.changed, sweep.total) == (0, 5)


def test_while_redis_is_away_this_is_told_no_repair_is_noted_and_jobs_go_on(own_bridge, servers):
    broker = servers.redis_url.rpartition("/")[0] + "/999"
    bridge = own_bridge(beat=False, api_processes="1", redis_url="redis://127.0.0.1:1/0", broker_url=broker)
    client = bridge.client()
    wait_until(lambda: metrics(client)["bridge_redis_away",] == 1, "the absence to be seen")
    celery = next(child for child in bridge.stack.family.children if child.name == "celery")
    bridge.celery.send_task(names.RECONCILE, queue=names.QUEUE, ignore_result=True)
    wait_until(lambda: "sweep_skipped_redis_unavailable" in celery.log.read_text(), "the repair to be put off")
    bridge.celery.send_task(names.PURGE, queue=names.QUEUE, ignore_result=True)
    wait_until(lambda: bridge.sql("SELECT name FROM sweeps"), "another sweep to be noted")
    assert [row.name for row in bridge.sql("SELECT name FROM sweeps")] == ["purge_jobs"]
    assert ok(client.get("/readyz")) == {"status": "degraded", "redis": "away"}
    job_id = client.create()
    job = client.claim()
    assert job["job_id"] == job_id
    assert ok(client.result(job))["status"] == "completed"


@pytest.fixture(scope="module")
def alone(start_bridge):
    return start_bridge(celery=False, beat=False)


def test_a_mirror_without_its_epoch_is_degraded_until_it_is_rebuilt(alone):
    client = alone.client()
    assert ok(client.get("/readyz")) == {"status": "degraded", "redis": "rebuilding"}
    job_id = client.create()
    assert client.claim()["job_id"] == job_id


def test_without_postgresql_the_bridge_is_not_ready_says_so_and_comes_back(alone):
    client = alone.client()
    job_id = client.create()
    with no_connections(alone.engine.url):
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
    wait_until(lambda: client.get("/readyz").status_code == 200, "PostgreSQL to be back")
    assert client.status(job_id) == "pending"
    terminate_backends(alone.settings.require("database_url"))
    wait_until(lambda: client.get(f"{job_id}/status").status_code == 200, "the cut connections to be replaced")
