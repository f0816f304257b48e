"""Changing jobs, workers and continuations from the command line: real processes against a running bridge."""

import json

import pytest

from tests.support.client import ok
from tests.support.client_commands import document, end, lines, said
from tests.support.command import refusal
from tests.support.waiting import wait_until

UNKNOWN = "00000000-0000-0000-0000-000000000000"


def test_one_job_is_cancelled_and_put_back(run, client):
    job_id = client.create()
    assert said(run("jobs", "cancel", job_id)) == f"{job_id} cancelled\n"
    assert document(run("jobs", "cancel", job_id, "--json")) == {"job_id": job_id, "status": "cancelled"}
    assert said(run("jobs", "retry", job_id)) == f"{job_id} pending\n"
    assert client.status(job_id) == "pending"


def test_a_job_that_cannot_be_changed_is_refused_in_one_line(run, client, bridge):
    assert refusal(run("jobs", "cancel", end(client, bridge, "completed")), 1).endswith("already completed.")
    assert "was not found" in refusal(run("jobs", "retry", UNKNOWN), 1)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_many_jobs_are_not_changed_without_a_filter_or_without_a_yes(run, client, bridge, verb):
    end(client, bridge, "failed")
    client.create()
    assert "name a JOB, or at least one filter: --status" in refusal(run("jobs", verb))
    assert "name a JOB, or at least one filter" in refusal(run("jobs", verb, "--dry-run", "--yes"))
    assert "not a terminal: add --yes" in refusal(run("jobs", verb, "--type", "audio"))
    assert "a JOB takes no filters" in refusal(run("jobs", verb, UNKNOWN, "--type", "audio"))
    assert document(run("jobs", verb, "--type", "audio", "--dry-run", "--json")) == {"matched": 1, "changed": 0}
    assert sorted(job["status"] for job in ok(client.get(""))["jobs"]) == ["failed", "pending"]


def test_many_jobs_are_changed_after_a_yes(run, terminal, client):
    ids = [client.create("video") for _ in range(3)]
    other = client.create("audio")
    assert said(run("jobs", "cancel", "--type", "video", "--yes")) == "3 jobs matched, 3 cancelled\n"
    asked = terminal("jobs", "retry", "--type", "video")
    asked.says("Retry 3 jobs? [y/N]")
    asked.types("n\n")
    assert asked.ends() == 1
    assert "nothing was changed" in asked.text
    assert [client.status(job_id) for job_id in ids] == ["cancelled"] * 3
    asked = terminal("jobs", "retry", "--type", "video", "--json")
    asked.says("Retry 3 jobs? [y/N]")
    asked.types("y\n")
    assert asked.ends() == 0
    assert json.loads(asked.text[asked.text.rindex("{") :]) == {"matched": 3, "changed": 3}
    assert [client.status(job_id) for job_id in [*ids, other]] == ["pending"] * 4


def test_nobody_is_asked_when_nothing_matches(terminal, client):
    asked = terminal("jobs", "cancel", "--type", "video")
    assert asked.ends() == 0
    assert "0 jobs matched, 0 cancelled" in asked.text


@pytest.mark.slow
def test_a_worker_is_paused_and_resumed_whatever_its_name(run, client):
    name = "gpu/1 ?#%ä"
    paused = said(run("workers", "pause", name, "--reason", "dust", "--seconds", "7200"))
    assert paused.startswith(f"{name} is paused for ")
    assert "by operator: dust" in said(run("workers"))
    wait_until(lambda: client.poll(worker_id=name).status_code == 429, "the pause to be felt")
    resumed = {"worker_id": name, "paused": False, "drain": False, "until": None}
    assert document(run("workers", "resume", name, "--json")) == resumed
    wait_until(lambda: client.poll(worker_id=name).status_code == 200, "its end to be felt")
    prefix = "_".join(client.key.split("_")[:2])
    assert "until it is resumed" in said(run("workers", "pause", name, "--reason", "x", "--key-prefix", prefix))
    assert lines(run("workers", "pause", name, "--reason", "x", "--key-prefix", "jb_0"), 1)[1].startswith("key: ")


@pytest.mark.slow
def test_an_outcome_is_sent_again(run, client, bridge):
    job_id = end(client, bridge, "completed")
    wait_until(lambda: document(run("continuations", "--state", "sent", "--json"))["continuations"], "the hand-over")
    assert job_id in said(run("continuations", "--state", "sent"))
    assert said(run("continuations", "resend", job_id)) == "1 sent again\n"
    assert document(run("continuations", "resend", job_id, "--n", "1", "--json")) == {"changed": 1}
    assert "No such outcome" in refusal(run("continuations", "resend", job_id, "--n", "2"), 1)
    assert "not a terminal" in refusal(run("continuations", "resend", "--state", "failing"))
    assert document(run("continuations", "resend", "--state", "failing", "--yes", "--json")) == {"changed": 0}
    assert "name either a JOB" in refusal(run("continuations", "resend"))
