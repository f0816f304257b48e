"""Keys whose jobs have their worker fetch from the source's server, unless a job says otherwise."""

import re
from functools import partial

import pytest

from bridge.caller import Caller
from bridge.jobs.enqueue import enqueue, enqueue_batch
from bridge.jobs.fields import CreateFields
from bridge.names import KEYS_BASE
from tests.support.browser import Browser
from tests.support.client import Client, ok, refused
from tests.support.client_commands import document, said
from tests.support.command import refusal
from tests.support.quick_command import quick_jobbridge as jobbridge

URL = "https://files.example.org/a.pdf"
NEW = {"name": "fetches", "scopes": ["admin"]}
JOB = {"source_url": URL, "content_type": "doc", "ingestion_task_id": "x"}


@pytest.fixture(scope="module", params=["on", "off"])
def allowing(request, start_bridge):
    """Yield a bridge whose operator allows it, with creates answered before Flask, and by it."""
    running = start_bridge(celery=False, beat=False, api_processes="1", fast_routes=request.param,
                           source_allow="https://files.example.org", source_worker_fetch="on")  # fmt: skip
    yield running
    running.stack.stop()


@pytest.fixture
def fetching(allowing):
    """Return a client whose key has its jobs' workers fetch."""
    admin = allowing.client()
    answer = admin.post(f"{KEYS_BASE}/", {**NEW, "source_fetch": "worker"})
    assert (answer.status_code, answer.json()["source_fetch"]) == (201, "worker")
    return Client(allowing.url, answer.json()["key"], allowing.files, admin.tenant)


def test_a_job_has_what_its_key_says_unless_it_says_something_itself(fetching):
    job_id = ok(fetching.post("", JOB))["job_id"]
    job = fetching.claim("doc")
    told = fetching.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]}, allow_redirects=False)
    assert (told.status_code, told.headers["Location"], told.headers["X-Source-Fetch"]) == (307, URL, "worker")
    jobs = [JOB, {**JOB, "source_fetch": None}, {**JOB, "source_fetch": "bridge"}, {**JOB, "source_fetch": "worker"}]
    made = [job_id, *(one["job_id"] for one in ok(fetching.post("batch", {"jobs": jobs}))["jobs"])]
    made += [ok(fetching.post("", {**JOB, "source_fetch": "bridge"}))["job_id"], fetching.create("doc")]
    told = [fetching.job(one)["source_fetch"] for one in made]
    assert told == ["worker", "worker", "worker", "bridge", "worker", "bridge", "bridge"]


def test_jobs_of_other_keys_are_fetched_by_the_bridge(allowing):
    client = allowing.client()
    answer = client.post(f"{KEYS_BASE}/", {**NEW, "source_fetch": "bridge"})
    for one in (client, Client(allowing.url, answer.json()["key"], allowing.files, client.tenant)):
        assert client.job(ok(one.post("", JOB))["job_id"])["source_fetch"] == "bridge"


def test_a_replay_gives_the_first_answer_whatever_the_key_says(allowing, fetching):
    headers = {"Idempotency-Key": "once"}
    first = ok(fetching.post("", JOB, headers=headers))
    other = allowing.client(fetching.tenant)
    assert ok(other.post("", {**JOB, "source_fetch": "bridge"}, headers=headers)) == first
    assert fetching.job(first["job_id"])["source_fetch"] == "worker"
    refused(fetching.post("", {**JOB, "source_fetch": "worker"}, headers=headers), 422, "idempotency_mismatch")


def test_the_command_line_and_the_dashboard_make_and_show_such_keys(allowing, fetching, tmp_path):
    run = partial(jobbridge, cwd=tmp_path, BRIDGE_URL=allowing.url, BRIDGE_KEY=fetching.key)
    key = said(run("keys", "create", "by command", "--scopes", "submit,read", "--source-fetch", "worker")).strip()
    assert said(run("keys", "list")).count("workers fetch sources") == 2
    told = {one["name"]: one["source_fetch"] for one in document(run("keys", "list", "--json"))["keys"]}
    assert told == {"test": None, "fetches": "worker", "by command": "worker"}
    begun = document(run("jobs", "submit", "--source-url", URL, "--type", "doc", "--json", BRIDGE_KEY=key))
    assert fetching.job(begun["jobs"][0]["job_id"])["source_fetch"] == "worker"
    assert "\nsource_fetch: " in run("keys", "create", "x", "--scopes", "read", "--source-fetch", "me").stderr
    browser = Browser(allowing.url, fetching.key)
    assert 'name="source_fetch"' in browser.get("/ui/keys").text
    page = browser.act("/ui/keys", name="by a form", scopes="submit", source_fetch="worker").text
    assert page.count("sources fetched by workers") == 3
    assert re.search(r'<code class="secret">jb_', page)


@pytest.mark.parametrize("wrong", ["", "me", "Worker", "worker\n", 1, ["worker"], {}])
def test_what_is_neither_is_refused_by_the_name_of_its_field(client, wrong):
    answer = refused(client.post(f"{KEYS_BASE}/", {**NEW, "source_fetch": wrong}), 422)
    assert list(answer["errors"]) == ["source_fetch"]


def test_where_the_operator_does_not_allow_it_no_such_key_is_made(bridge, client, tmp_path):
    answer = refused(client.post(f"{KEYS_BASE}/", {**NEW, "source_fetch": "worker"}), 422)
    assert "BRIDGE_SOURCE_WORKER_FETCH" in answer["errors"]["source_fetch"][0]
    browser = Browser(bridge.url, client.key)
    assert 'name="source_fetch"' not in browser.get("/ui/keys").text
    assert browser.act("/ui/keys", name="x", scopes="read", source_fetch="worker").status_code == 422
    local = partial(jobbridge, "keys", "create", "x", "--scopes", "read", "--source-fetch", cwd=tmp_path,
                    BRIDGE_DATABASE_URL=bridge.settings.require("database_url"))  # fmt: skip
    assert "BRIDGE_SOURCE_WORKER_FETCH" in refusal(local("worker"))
    assert "--source-fetch is one of bridge, worker" in refusal(local("me"))
    said(local("worker", BRIDGE_SOURCE_WORKER_FETCH="on"))
    for allowed in ("bridge", None):
        assert client.post(f"{KEYS_BASE}/", {**NEW, "source_fetch": allowed}).json()["source_fetch"] == allowed


def test_once_it_is_switched_off_the_bridge_fetches_for_such_a_key_too(make_runtime, core):
    """Its creates do not fail for what an operator has changed."""
    runtime, asks = make_runtime(source_allow="https://files.example.org"), Caller(source_fetch="worker")
    fields = CreateFields().load(JOB)
    enqueue(runtime, "default", fields, asks=asks)
    enqueue(runtime, "default", fields, asks=asks, idempotency_key="k")
    enqueue_batch(runtime, "default", [fields], asks=asks)
    assert core.sql("SELECT source_fetch FROM remote_jobs") == [(None,)] * 3
