"""What /metrics tells, held against what has just happened."""

from operator import itemgetter

from prometheus_client.parser import text_string_to_metric_families
from requests import get

from bridge.insight.counting import CREATED, FAMILIES, MOST_TIMED, WAITED, Counting
from bridge.insight.gauges import MOST_TYPES, OTHER
from bridge.insight.totals import Totals, add_totals
from bridge.outbox import pipeline_queue
from bridge.outbox.outcomes import deliver
from models.job_state import AttemptEnd
from tests.support.client import ok, refused
from tests.support.core import Core
from tests.support.waiting import wait_until


def by_labels(families):
    """(name, labels) → value, of every line."""
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def samples(bridge):
    return by_labels(text_string_to_metric_families(get(f"{bridge.url}/metrics", timeout=60).text))


def since(before, after, name, **labels):
    key = (name, tuple(sorted(labels.items())))
    return after.get(key, 0.0) - before.get(key, 0.0)


def test_the_life_of_a_job_is_counted_once_in_each_place(bridge, client):
    before = samples(bridge)
    kind = f"counted-{client.tenant[-6:]}"
    client.create(kind)
    waits = client.create(kind)
    job = client.claim(kind)
    ok(client.result(job))
    refused(client.result(job, content="another"), 409)
    ok(client.post(f"{waits}/cancel"))

    put = {"method": "PUT", "route": "/api/v1/remote-jobs/<job:job_id>/result"}
    of_it: list[tuple[str, dict[str, str], int]] = [
        ("bridge_jobs_created_total", {}, 2),
        ("bridge_jobs_claimed_total", {}, 1),
        ("bridge_jobs_finished_total", {"status": "completed"}, 1),
        ("bridge_jobs_finished_total", {"status": "cancelled"}, 1),
        ("bridge_queue_wait_seconds_count", {}, 1),
        ("bridge_queue_wait_seconds_bucket", {"le": "+Inf"}, 1),
        ("bridge_processing_seconds_count", {}, 1),
    ]
    of_all: list[tuple[str, dict[str, str]]] = [
        ("bridge_results_accepted_total", {"status": "completed"}),
        ("bridge_results_refused_total", {"code": "already_finished"}),
        ("bridge_attempts_ended_total", {"how": "completed"}),
        ("bridge_http_seconds_count", {**put, "status": "200"}),
        ("bridge_http_seconds_count", {**put, "status": "409"}),
    ]

    def told():
        found = samples(bridge)  # of the process that did not answer as it was up to a tenth of a second ago
        whole = all(since(before, found, name, content_type=kind, **labels) >= count for name, labels, count in of_it)
        return found if whole and all(since(before, found, name, **labels) >= 1 for name, labels in of_all) else None

    after = wait_until(told, "all of it to be told")
    for name, labels, count in of_it:
        assert since(before, after, name, content_type=kind, **labels) == count, (name, labels)
    assert since(before, after, "bridge_results_accepted_total", status="completed") == 1
    assert ("bridge_mirror_gap", ()) in after
    for pool in ("requests", "reserved"):
        assert 0 <= after["bridge_pool_connections_in_use", (("pool", pool),)] <= 60
        assert after["bridge_pool_connections", (("pool", pool),)] > 0


def test_the_scaling_gauges_are_the_numbers_of_the_scaling_route(own_bridge):
    bridge = own_bridge()  # the gauges are of the queues with the most to do, and others fill the shared one
    client = bridge.client()
    kind = f"scaled-{client.tenant[-6:]}"
    client.create(kind)
    ok(client.result(client.claim(kind)))
    client.create(kind)
    wait_until(lambda: bridge.sql("SELECT FROM job_durations WHERE content_type = :kind", kind=kind), "its median")
    place = (("content_type", kind), ("tenant", client.tenant))
    names = ("claimable", "processing", "workers_waiting", "workers_busy", "median_seconds", "workers_wanted")
    scale, found = ok(client.get(f"/api/v1/scaling/{kind}")), samples(bridge)
    while itemgetter(*names)(after := ok(client.get(f"/api/v1/scaling/{kind}"))) != itemgetter(*names)(scale):
        scale, found = after, samples(bridge)  # the worker was seen, or forgotten, meanwhile
    for name in names:
        assert found[f"bridge_scaling_{name}", place] == scale[name], name
    assert found["bridge_scaling_oldest_seconds", place] >= scale["oldest_seconds"]
    ok(client.result(client.claim(kind)))
    done = samples(bridge)
    assert {done[f"bridge_scaling_{name}", place] for name in ("claimable", "processing", "workers_wanted")} == {0}


def test_what_celerys_processes_count_is_added_to_what_the_api_has(make_runtime):
    runtime = make_runtime()
    totals = [Totals(runtime.engine), Totals(runtime.engine)]
    for one in totals:
        core = Core(runtime.__class__(**{**vars(runtime), "observer": Counting(one)}))
        silent = core.held(max_retries=0)
        core.age(silent.job_id, 61)
        core.expire()
        deliver(core.runtime, lambda *_: None, ())
        core.runtime.observer.called("delivered", "2xx")
        one.tell()
        one.tell()  # once is enough
    with runtime.engine.connect() as connection:
        found = by_labels(add_totals(connection, []))
    assert found["bridge_jobs_created_total", (("content_type", "audio"),)] == 2
    assert found["bridge_jobs_finished_total", (("content_type", "audio"), ("status", "failed"))] == 2
    assert found["bridge_attempts_ended_total", (("how", AttemptEnd.LEASE_EXPIRED),)] == 2
    assert found["bridge_continuations_sent_total", (("again", "false"),)] == 2
    assert found["bridge_webhooks_sent_total", (("answer", "2xx"), ("how", "delivered"))] == 2
    kind, ran = ("content_type", "audio"), "bridge_processing_seconds"
    assert [found[f"{ran}_bucket", (kind, ("le", le))] for le in ("60.0", "300.0", "+Inf")] == [0, 2, 2]
    assert found[f"{ran}_count", (kind,)] == 2
    assert found[f"{ran}_sum", (kind,)] > 120
    assert found["bridge_continuation_seconds_count", ()] == 2
    assert {name.removesuffix("_total") for name, _ in found} >= {one.name for one in FAMILIES if not one.buckets}


def test_content_types_of_one_process_after_the_other_share_a_label_in_the_end(make_runtime):
    runtime = make_runtime()
    for life in range(5):
        totals = Totals(runtime.engine)
        for n in range(60):
            totals.inc(CREATED, f"made-up-{life}-{n}")
            totals.observe(WAITED, 0.2, f"made-up-{life}-{n}")
        totals.tell()
    with runtime.engine.connect() as connection:
        created, waited = (
            {one.labels["content_type"]: one.value for one in metric.samples if one.name == name}
            for metric in add_totals(connection, [])
            for name in ("bridge_jobs_created_total", "bridge_queue_wait_seconds_count")
            if name.startswith(metric.name)
        )
    assert (len(created), len(waited)) == (MOST_TYPES + 1, MOST_TIMED + 1)
    assert (sum(created.values()), sum(waited.values())) == (300, 300)
    assert (created[OTHER], waited[OTHER]) == (300 - MOST_TYPES, 300 - MOST_TIMED)


def test_a_queue_whose_next_message_stays_is_not_consumed(core):
    def look(messages, oldest):
        with core.engine.begin() as connection:
            pipeline_queue.keep(connection, "celery", messages, oldest)
            return pipeline_queue.pipeline_queue(connection, "celery")

    back = "UPDATE pipeline_queues SET untouched_since = untouched_since - interval '90 s'"
    assert look(3, b"first").consumed
    core.sql(back)
    stuck = look(5, b"first")
    assert (stuck.consumed, stuck.messages) == (False, 5)
    assert 90 <= stuck.untouched_seconds < 150
    said = pipeline_queue.sentence(stuck, "default")
    assert said is not None
    assert said.startswith(
        "5 messages wait in the pipeline's queue `celery` and nothing consumes it: none has been taken for 9"
    )
    assert pipeline_queue.sentence(stuck, "another") == "The pipeline takes no outcomes at the moment."
    assert pipeline_queue.sentence(look(5, b"second"), "another") is None
    core.sql(back)
    empty = look(0, None)
    assert (empty.consumed, empty.untouched_seconds, pipeline_queue.sentence(empty, "default")) == (True, 0, None)
    core.sql(back)
    assert look(1, b"new").consumed, "an empty queue is no sign of a pipeline that takes nothing"


def test_who_sees_all_tenants_and_asks_why_an_outcome_does_not_arrive_is_told_of_the_queue(bridge, client):
    """The shared bridge's pipeline reads nothing."""
    operator, job_ids = bridge.client("default"), {}
    for one in (operator, client):
        job_ids[one] = one.create("told-of-the-queue")
        ok(one.result(one.claim("told-of-the-queue")))

    def told():
        queue = ok(operator.get("/api/v1/continuations"))["pipeline_queue"]
        return queue if queue and queue["messages"] else None

    queue = wait_until(told, "the queue to be looked at with the outcome in it")
    assert queue["queue"] == "nobody"

    def said():
        why = " ".join(ok(operator.get(f"{job_ids[operator]}/explain"))["sentences"])
        return "the pipeline's queue `nobody`" in why

    wait_until(said, "explain to name the queue")
    assert ok(client.get("/api/v1/continuations"))["pipeline_queue"] is None
    assert "nobody" not in client.get(f"{job_ids[client]}/explain").text
    labels = (("queue", "nobody"),)
    wait_until(lambda: samples(bridge).get(("bridge_pipeline_queue_messages", labels), 0) >= 1, "each process to tell")
    wait_until(lambda: ("bridge_pipeline_queue_untouched_seconds", labels) in samples(bridge), "and of its age")
