"""What the client commands show where there is little, much, or something unusual to show."""

import io
import json
from contextlib import redirect_stdout
from typing import Any

import pytest

from bridge.cli.console import console
from bridge.cli.remote.worker_tables import machine
from tests.support.client import ok, refused
from tests.support.client_commands import document, end, said
from tests.support.command import refusal
from tests.support.scripted_answers import answer, scripted

NUMBERS: dict[str, Any] = {"by_status": {}, "by_content_type": {}, "parked_polls": None, "oldest_pending_seconds": None,
           "oldest_pending_seconds_by_content_type": {}, "median_durations": {}, "sweeps": []}  # fmt: skip
WORKER = {"worker_id": "w1", "key": None, "content_types": ["audio"], "denied_content_types": ["video"],
          "last_seen": None, "jobs_in_hand": 0, "paused": None}  # fmt: skip
AWAY = {"workers": [WORKER], "count": 9, "redis": "away", "next_cursor": "c"}
UNAVAILABLE = {"status": 503, "detail": "PostgreSQL does not answer."}
OUT = {"status": 401, "detail": "The key is not valid."}
STATUS = {"job_id": "00000000-0000-0000-0000-000000000000", "attempt": 1, "progress": None, "message": None,
          "worker_id": None, "error_message": None}  # fmt: skip


def told(body, status="200 OK"):
    return answer(status, json.dumps(body).encode(), "X-Request-ID: 1")


BUSY, REFUSED = told(UNAVAILABLE, "503 Service Unavailable"), told(OUT, "401 Unauthorized")


@pytest.fixture
def told_by(run):
    """Run a command on these answers, as in a terminal of that width if there is one; return it and what was asked."""

    def answered(*arguments, answers, width=None):
        around = {} if width is None else {"FORCE_COLOR": "1", "COLUMNS": str(width), "LINES": "50", "TERM": "xterm"}
        with scripted(*answers) as server:
            done = run(*arguments, BRIDGE_URL=server.url, BRIDGE_KEY="a-key", **around)
        return done, [head.split()[1] for head in server.heads]

    return answered


def test_where_there_is_nothing_it_is_said(run, client, bridge):
    job_id = end(client, bridge, "completed")
    assert said(run("continuations", "list", "--state", "failing")) == "No outcomes pending.\n"
    assert said(run("webhooks")) == "No webhooks.\n"
    assert said(run("jobs", "artifacts", job_id)) == "No artifacts.\n"
    done = run("jobs", "logs", job_id)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "The job has no log.\n")
    assert document(run("workers", "evict", "nobody", "--json"))["workers"][0]["worker_id"] == "nobody"
    assert "all" in said(run("queues"))


def test_a_worker_is_drained_and_resumed(run, client):
    assert said(run("workers", "drain", "w1", "--reason", "update")).startswith("w1 is asked to end, for ")
    assert "drained" in said(run("workers"))
    assert said(run("workers", "resume", "w1")) == "w1 is no longer paused or drained: it gets jobs again\n"


def test_webhooks_are_listed_with_their_receivers_and_errors_wide_and_narrow(run, client, bridge):
    job_id = end(client, bridge, "cancelled")
    bridge.sql("INSERT INTO webhooks (job_id, n, tenant, key_id, url, kwargs, created_at, since, next_at, tries,"
               " last_error) VALUES (:id, 1, :t, :id, 'https://hooks.example.org/secret', '{}', now(), now(),"
               " now() + interval '1 day', 9, 'The receiver answered 503.')",
               id=job_id, t=client.tenant)  # fmt: skip
    for around in ({}, {"FORCE_COLOR": "1", "COLUMNS": "80"}):
        shown = said(run("webhooks", "list", **around))
        for words in (job_id, "failing", "hooks.example.org", "The receiver answered 503."):
            assert words in shown
        assert "secret" not in shown
    assert "not a terminal: add --yes" in refusal(run("webhooks", "resend", "--state", "failing"))


def test_keys_are_printed_as_json_and_below_each_other_where_it_is_narrow(run, client):
    prefix = "_".join(client.key.split("_")[:2])
    (key,) = [one for one in document(run("keys", "list", "--json"))["keys"] if one["prefix"] == prefix]
    assert (key["tenant"], key["scopes"]) == (client.tenant, ["admin"])
    assert key["created_at"].startswith("20")
    narrow = said(run("keys", "list", FORCE_COLOR="1", COLUMNS="80"))
    assert prefix in narrow
    assert f"tenant {client.tenant}, types all" in narrow


def test_refused_results_are_listed_with_their_codes(run, client):
    job_id = client.create()
    job = client.claim()
    ok(client.result(job))
    refused(client.result(job, content="another"), 409)
    shown = said(run("jobs", "show", job_id))
    assert "Refusals" in shown
    assert "already_finished" in shown


def test_a_result_with_commands_for_a_terminal_commands_none(terminal, client):
    job_id = client.create("result")
    ok(client.result(client.claim("result"), content="first\n\x1b]0;title\x07second"))
    shown = terminal("jobs", "result", job_id)
    assert shown.ends() == 0
    assert "second" in shown.text
    assert "\x1b]" not in shown.raw


def test_ctrl_c_ends_following_a_log_and_a_question_before_many_is_answered_no(terminal, client):
    job_id = client.create("logs")
    token = {"X-Lease-Token": client.claim("logs")["lease_token"]}
    ok(client.post(f"{job_id}/log", {"lines": ["page 1"]}, headers=token))
    following = terminal("jobs", "logs", job_id, "--follow", "--every", "0.1")
    asked = terminal("continuations", "resend", "--state", "failing")
    asked.says("Send all outcomes that are failing again? [y/N]")
    asked.types("n\n")
    following.says("page 1")
    ok(client.post(f"{job_id}/log", {"lines": ["page 2"]}, headers=token))
    following.says("page 2")
    following.types("\x03")
    assert (following.ends(), asked.ends()) == (0, 1)
    assert "Traceback" not in following.text
    assert "nothing was changed" in asked.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--type", "web"], "name a FILE or --source-url"),
        (["x", "--type", "web", "--source-fetch", "bridge"], "--source-fetch is about --source-url"),
        (["x", "y", "--type", "web", "--source-sha256", "00"], "--source-sha256 is that of one FILE"),
        (["x", "--type", "web", "--ingestion-task-id", "\udcff"], "what is to be sent is not UTF-8"),
    ],
)
def test_a_submission_that_makes_no_sense_is_refused_before_it_is_sent(run, arguments, words):
    assert words in refusal(run("jobs", "submit", *arguments))


def test_a_file_that_is_on_neither_side_is_said_to_be_missing_here(run, client):
    done = run("jobs", "submit", "/nowhere/page.html", "--type", "web")
    assert done.returncode == 1
    assert done.stderr.startswith("jobbridge: /nowhere/page.html is not a file on this machine\n")


def test_without_redis_the_list_of_workers_says_what_it_lacks(told_by):
    done, _ = told_by("workers", answers=[told(AWAY)])
    assert "… and 8 more, last seen earlier" in said(done)
    assert "Redis is away: only those that hold a job or are paused are known." in done.stdout
    assert "video (denied)" in done.stdout


def test_a_pipelines_queue_that_nobody_empties_is_told_with_the_outcomes(told_by):
    queue = {"queue": "ingestion", "messages": 7, "consumed": False, "untouched_seconds": 90.0}
    body: dict[str, Any] = {"pipeline_queue": queue, "continuations": [], "next_cursor": None}
    done, _ = told_by("continuations", answers=[told(body)])
    assert said(done) == "The pipeline's queue ingestion: 7 messages; none was taken for 90 s.\nNo outcomes pending.\n"


def test_keys_are_fetched_page_by_page(told_by):
    row = {"name": "n", "tenant": "t", "scopes": ["read"], "content_types": None, "made_by": None, "revoked_by": None,
           "callback_url": None, "created_at": None, "expires_at": None, "revoked_at": None,
           "last_used_at": None}  # fmt: skip
    pages = [{"keys": [{**row, "prefix": "jb_1"}], "next_cursor": "c2"}, {"keys": [{**row, "prefix": "jb_2"}],
             "next_cursor": None}]  # fmt: skip
    done, asked = told_by("keys", "list", "--json", answers=[told(page) for page in pages])
    assert [key["prefix"] for key in document(done)["keys"]] == ["jb_1", "jb_2"]
    assert "cursor=c2" in asked[1]


def test_top_goes_on_while_the_bridge_does_not_answer_and_ends_when_it_refuses(told_by):
    none, some = told({"continuations": [], "webhooks": []}), told(NUMBERS)
    few = told({**AWAY, "workers": []})
    answers = [some, BUSY, none, none, some, few, none, BUSY, some, told(AWAY), none, none, REFUSED]
    done, _ = told_by("top", "--every", "0.5", answers=answers, width=120)
    assert done.returncode == 1
    assert "The key is not valid." in done.stderr
    for words in ("PostgreSQL does not answer.; trying again", "… and 9 more workers", "Redis is away: only workers"):
        assert words in done.stdout


def test_watching_goes_on_while_the_bridge_does_not_answer(told_by):
    answers = [told({**STATUS, "status": "pending"}), BUSY, told({**STATUS, "status": "completed"})]
    done, _ = told_by("jobs", "watch", STATUS["job_id"], "--every", "0.1", answers=answers)
    assert done.returncode == 0, done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["pending", "completed"]
    queues, asked = told_by("jobs", "watch", "--every", "0.1", answers=[told(NUMBERS), BUSY, REFUSED], width=80)
    assert (queues.returncode, len(asked)) == (1, 3)
    assert "trying again" in queues.stdout


def test_what_is_no_bridge_is_not_taken_for_one_by_the_clients_that_fetch_files(told_by):
    done, _ = told_by("jobs", "artifacts", STATUS["job_id"], answers=[told({"items": [7]})])
    assert "was not understood" in refusal(done, 3)


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, "–"),
        ({"host": "gpu", "memory": 2**34}, "gpu, 16.0 GiB"),
        ({"memory": 2**34, "memory_free": 2**33, "platform": "linux"}, "linux, 8.0/16.0 GiB free"),
    ],
)
def test_a_machine_is_a_line_of_what_is_known(facts, shown):
    assert machine(facts) == shown


def test_what_has_no_encoding_is_printed_on_too():
    with redirect_stdout(io.StringIO()) as out:
        console().print("é")
    assert out.getvalue() == "é\n"
