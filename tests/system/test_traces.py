"""One trace of a job, from the pipeline's message to its outcome, as a collector of OpenTelemetry receives it."""

import sys
import time
from functools import partial
from typing import Any

import pytest

from bridge import names
from bridge.cli.local.checkout import settings_and_environment
from bridge.recorded_traces import Recorded
from bridge.settings import SettingsError
from bridge.traces import Passed, Traces, traces_of, valid
from bridge_worker import traces as worker_traces
from bridge_worker.claim import read_claim
from tests.support.broker import delivered
from tests.support.client import ok
from tests.support.collector import collector
from tests.support.waiting import LATEST, wait_until
from tests.system.worker_process import Worker

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = f"00-{TRACE}-{SPAN}-01"
HANDLER = """
import os
from bridge_worker import Result

def convert(job, path):
    assert not any(name.startswith("OTEL_EXPORTER_") for name in os.environ)
    return Result("secret words of the document")
"""


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (SENT, SENT),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", SENT),  # of the flags only the first is known
        (f"01-{TRACE}-{SPAN}-01", SENT),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", SENT),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"01-{TRACE}-{SPAN}-01.x", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (SENT.upper(), None),
        (f" {SENT}", None),
        (f"{SENT}\n", None),
        (f"{SENT},{SENT}", None),
        (f"01-{TRACE}-{SPAN}-01-{'x' * 10_000}", None),
        ("", None),
        (None, None),
        (["00"], None),
    ],
)
def test_a_traceparent_counts_in_the_form_of_the_standard_alone(sent, kept):
    assert valid(sent) == kept


@pytest.mark.slow
def test_one_trace_from_the_pipelines_message_through_the_worker_to_the_outcome(own_bridge, tmp_path, monkeypatch):
    with collector() as seen:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": seen.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        bridge = own_bridge(api_processes="1", continuation_task="pipeline.receive", continuation_queue="nobody")
        client = bridge.client()
        kwargs = {**client.fields(), "tenant": client.tenant}
        asked = bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE, headers={"traceparent": SENT})
        sent = asked.get(timeout=LATEST)
        (tmp_path / "my_handlers.py").write_text(HANDLER)
        does = ("--content-types", "audio", "--handler", "my_handlers:convert")
        key = bridge.key(client.tenant, ("work",))
        with Worker(bridge, key, tmp_path, "gpu-1", *does, TMPDIR=str(tmp_path), **told):
            (message,) = delivered(bridge, sent["job_id"])
            wanted = {"job_created", "job_claimed", "job_completed", "outcome_sent", "attempt", "download", "convert",
                      "submit", "GET /api/v1/remote-jobs/<job:job_id>/download",
                      "PUT /api/v1/remote-jobs/<job:job_id>/result"}  # fmt: skip
            wait_until(lambda: wanted <= {span.name for span in seen.of(TRACE)}, "all spans")
        spans = {span.name: span for span in seen.of(TRACE)}

        def within(name):
            """Return what a span stands in, from the outside."""
            parent = next((one for one in spans.values() if one.id == spans[name].parent), None)
            return [*within(parent.name), parent.name] if parent else [spans[name].parent]

        created = [SPAN, "job_created"]
        assert within("job_created") == [SPAN]
        assert within("job_claimed") == within("job_completed") == within("outcome_sent") == created
        assert within("attempt") == created
        attempt = [*created, "attempt"]
        assert within("download") == within("convert") == within("submit") == attempt
        assert within("GET /api/v1/remote-jobs/<job:job_id>/download") == [*attempt, "download"]
        assert within("PUT /api/v1/remote-jobs/<job:job_id>/result") == [*attempt, "submit"]
        # The pipeline's own span stands below the sending.
        assert message.headers["traceparent"] == f"00-{TRACE}-{spans['outcome_sent'].id}-01"
        services = {name: span.service for name, span in spans.items()}
        assert services["job_created"] == services["outcome_sent"] == "jobbridge-celery"
        assert services["job_claimed"] == services["job_completed"] == "jobbridge-api"
        assert services["convert"] == "bridge-worker"
        assert spans["job_completed"].facts["bridge.job_id"] == sent["job_id"]
        assert spans["PUT /api/v1/remote-jobs/<job:job_id>/result"].facts["http.response.status_code"] == 200
        assert "secret" not in repr(seen.spans)

        # Over HTTP the same, whichever of the routes serves it; without a header a trace of its own begins.
        body = client.fields("video")
        for headers, parents in (({"traceparent": SENT}, 1), ({"traceparent": f"{SENT}x"}, 0), ({}, 0)):
            job_id = ok(client.post("", body, headers=headers))["job_id"]
            job = client.claim("video")
            assert job["job_id"] == job_id
            of = job["traceparent"].split("-")[1]
            assert (of == TRACE) == bool(parents)
            made = wait_until(partial(seen.span, "job_created", job_id), "the create's span")
            assert made.trace == of
            above = [one.name for one in seen.spans if one.id == made.parent]
            assert above == ["POST /api/v1/remote-jobs/"] * parents
            ok(client.result(job))

        # A collector that hangs holds up neither requests nor tasks.
        seen.hangs.set()
        before = seen.requests
        ok(client.post("", body))
        wait_until(lambda: seen.requests >= before + 1, "a request that hangs")
        began = time.monotonic()
        for _ in range(20):
            ok(client.post("", body, headers={"traceparent": SENT}))
            ok(client.result(client.claim("video")))
        job = client.claim("video")
        ok(client.result(job))
        delivered(bridge, job["job_id"])
        assert time.monotonic() - began < 60  # each that waited for the collector would take ten seconds


def test_a_bridge_without_traces_hands_on_what_the_create_was_given(bridge, client):
    for headers, told in (({"traceparent": SENT}, SENT), ({"traceparent": "00-rubbish"}, None), ({}, None)):
        ok(client.post("", client.fields(), headers=headers))
        job = client.claim()
        assert job["traceparent"] == told
        ok(client.result(job))
    batch = {"jobs": [client.fields()]}
    ok(client.post("batch", batch, headers={"traceparent": SENT}))
    assert client.claim()["traceparent"] == SENT


def test_a_workers_last_steps_are_sent_at_its_end(monkeypatch):
    with collector() as seen:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", seen.url)
        worker_traces.start("gpu-1")
        claim = read_claim({"job_id": "j", "content_type": "audio"})
        with worker_traces.step(claim, "attempt"), worker_traces.step(claim, "download"):
            assert worker_traces.header(claim)["traceparent"].startswith("00-")
        worker_traces.stop()
        spans = {span.name: span for span in seen.spans}
    assert spans["download"].parent == spans["attempt"].id
    assert spans["attempt"].parent == "", "the bridge gave no trace to go on with"
    assert worker_traces.header(claim) == {}


def test_traces_are_off_unless_an_endpoint_is_set():
    for environment in ({}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}):
        assert type(traces_of("a", environment)) is Traces
    assert Traces().begin("step", SENT) == Passed(SENT)


def test_traces_that_are_asked_for_and_not_installed_stop_the_start_with_one_line(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "bridge.recorded_traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"is not installed: pip install 'jobbridge\[traces\]', or unset it"):
        settings_and_environment({}, hermetic=True)


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_a_collector_that_is_away_or_hangs_delays_nothing_and_grows_nothing(how, monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE"):
        monkeypatch.setenv(name, "")  # put back afterwards
    with collector() as seen:
        seen.hangs.set()
        url = seen.url if how == "hangs" else "http://127.0.0.1:1"
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "10"}
        traces = traces_of("test", {**settings, "OTEL_BSP_MAX_QUEUE_SIZE": "1000"})
        assert isinstance(traces, Recorded)
        traces.begin("first", None).end()
        if how == "hangs":
            wait_until(lambda: seen.requests, "the first request")
        began = time.monotonic()
        for _ in range(20_000):
            traces.begin("step", SENT).end(**{"bridge.job_id": "x" * 1000})
        took = time.monotonic() - began
        assert took < 60  # about a second; each that waited for the collector would take ten
        processor: Any = traces._provider._active_span_processor._span_processors[0]
        queue = processor._batch_processor._queue
        assert len(queue) <= 1000
        assert max(len(span.attributes["bridge.job_id"]) for span in list(queue)) <= 255
        began = time.monotonic()
        traces.close()
        assert time.monotonic() - began < 20  # two seconds, on a busy machine
