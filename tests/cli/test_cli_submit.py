"""Submitting and watching from the command line: real processes against a running bridge."""

import json
import re
import uuid

import pytest

from tests.support.client import ok
from tests.support.client_commands import document, end, lines, said
from tests.support.command import refusal


def test_each_file_becomes_a_job_with_these_fields(run, client, tmp_path):
    first, second = client.source(name=f"a b {uuid.uuid4()}.pdf"), client.source()
    options = ["--option", "language=en", "--option", "pages=5", "--option", 'text="5"', "--option", "n=NaN"]
    options += ["--option", "share=0.5", "--option", "huge=1e999"]  # no number that JSON can hold
    more = ["--priority", "high", "--max-retries", "0", "--timeout-seconds", "60", "--queue-timeout-seconds", "600"]
    begun = document(run("jobs", "submit", first, second, "--type", "document", *options, *more, "--json"))
    jobs = [client.job(job["job_id"]) for job in begun["jobs"]]
    assert [job["source_file_path"] for job in jobs] == [first, second]
    assert [job["ingestion_task_id"] for job in jobs] == [path.rpartition("/")[2] for path in (first, second)]
    wanted = {"content_type": "document", "priority": "high", "max_retries": 0, "timeout_seconds": 60}
    wanted["queue_timeout_seconds"] = 600
    wanted["task_options"] = {"language": "en", "pages": 5, "text": "5", "n": "NaN", "share": 0.5, "huge": "1e999"}
    for job in jobs:
        assert job == {**job, **wanted}


def test_a_relative_file_is_below_the_current_directory(run, client):
    path = client.source()
    done = run("jobs", "submit", path.rpartition("/")[2], "--type", "web", cwd=client.files)
    assert path.rpartition("/")[2] in said(done)
    assert [job["source_file_path"] for job in ok(client.get(""))["jobs"]] == [path]


@pytest.mark.parametrize("option", [[], ["--upload"]])
def test_a_file_that_the_bridge_does_not_see_is_sent_to_it(run, client, tmp_path, option):
    file = tmp_path / "far away.html"
    file.write_bytes(b"<p>" + b"x" * 300_000)
    begun = document(run("jobs", "submit", str(file), "--type", "web", *option, "--json"))
    job = client.claim("web")
    assert job["job_id"] == begun["jobs"][0]["job_id"]
    assert (job["source_name"], job["source_media_type"]) == ("far away.html", "text/html")
    sent = client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]})
    assert sent.content == file.read_bytes()


def test_a_submission_may_name_task_and_moment(run, client):
    more = ["--ingestion-task-id", "7", "--available-at", "2999-01-01"]
    begun = document(run("jobs", "submit", client.source(), "--type", "web", *more, "--json"))
    job = client.job(begun["jobs"][0]["job_id"])
    assert (job["ingestion_task_id"], job["available_at"]) == ("7", "2999-01-01T00:00:00+00:00")


def test_a_submission_may_declare_the_digest_of_its_file(run, client):
    command = ["jobs", "submit", client.source(), "--type", "web", "--source-sha256"]
    said(run(*command, "AB" * 32))
    assert client.claim("web")["source_sha256"] == "ab" * 32
    assert "jobs.0.source_sha256: Must be a SHA-256" in run(*command, "ab").stderr


def test_an_idempotency_key_makes_no_second_jobs(run, client):
    command = ["jobs", "submit", client.source(), "--type", "web", "--idempotency-key", "night-7", "--json"]
    assert document(run(*command)) == document(run(*command))
    assert len(ok(client.get(""))["jobs"]) == 1


def test_a_refused_submission_names_each_field_in_a_line_and_creates_nothing(run, client):
    done = run("jobs", "submit", client.source(), str(client.files / "nosuch"), "--type", "Web", "--max-retries", "101")
    assert lines(done, 1) == [
        "jobbridge: The request was refused.",
        "jobs.0.content_type: Must be 1 to 50 characters of a-z 0-9 . _ and -.",
        "jobs.0.max_retries: Must be greater than or equal to 0 and less than or equal to 100.",
        "jobs.1.content_type: Must be 1 to 50 characters of a-z 0-9 . _ and -.",
        "jobs.1.max_retries: Must be greater than or equal to 0 and less than or equal to 100.",
    ]
    done = run("jobs", "submit", client.source(), str(client.files / "nosuch"), "--type", "web")
    assert lines(done, 1)[1:] == ["jobs.1.source_file_path: No such file."]
    assert ok(client.get(""))["jobs"] == []


@pytest.mark.parametrize("option", ["language", "=x", "a=1,--option,a=2"])
def test_an_option_that_is_no_pair_is_refused(run, client, option):
    command = ["jobs", "submit", client.source(), "--type", "web", "--option", *option.split(",")]
    assert "write name=value, each name once" in refusal(run(*command))
    assert ok(client.get(""))["jobs"] == []


def test_submit_waits_until_all_have_ended_and_says_how(begin, client):
    waiting = begin("jobs", "submit", client.source(), client.source(), "--type", "audio", "--wait")
    ok(client.result(client.claim()))
    assert waiting.process.poll() is None
    ok(client.result(client.claim(), success=False, retryable=False))
    assert waiting.ends() == 4
    assert re.search(r" source-\d+\.bin completed$", waiting.text, re.MULTILINE)
    assert re.search(r" source-\d+\.bin failed", waiting.text)


def test_submit_waits_and_answers_in_one_document(begin, client):
    waiting = begin("jobs", "submit", client.source(), "--type", "audio", "--wait", "--json")
    job = client.claim()
    ok(client.result(job))
    assert waiting.ends() == 0
    assert json.loads(waiting.text) == {"jobs": [ok(client.get(f"{job['job_id']}/status"))]}


@pytest.mark.parametrize(("how", "status"), [("completed", 0), ("failed", 4), ("timeout", 5), ("cancelled", 6)])
def test_the_exit_status_of_watch_says_how_the_job_ended(run, client, bridge, how, status):
    job_id = end(client, bridge, how)
    done = run("jobs", "watch", job_id)
    assert done.returncode == status, done.stderr
    assert f"{job_id} {how}" in done.stdout
    done = run("jobs", "watch", job_id, "--json")
    assert done.returncode == status
    assert json.loads(done.stdout) == ok(client.get(f"{job_id}/status"))


def test_watch_is_live_in_a_terminal_until_the_job_ends(terminal, client):
    job_id = client.create()
    watched = terminal("jobs", "watch", job_id, "--every", "0.1")
    watched.says("No job is ahead of it.")
    job = client.claim("audio", "gpu-9")
    ok(client.heartbeat(job, progress=0.4, message="page 2"))
    watched.says("The worker reports 40%: page 2.")
    ok(client.result(job))
    assert watched.ends() == 0
    assert f"{job_id} completed" in watched.text
    assert watched.raw.rindex("\x1b[?25h") > watched.raw.rindex("\x1b[?25l")  # the cursor is back


def test_ctrl_c_ends_a_watch_cleanly(terminal, client):
    job_id = client.create("video")
    queues, job = terminal("jobs", "watch"), terminal("jobs", "watch", job_id)
    assert re.search(r"video +1 ", queues.says("Ctrl-C ends"))
    job.says("No job is ahead of it.")
    for watched, status in ((queues, 0), (job, 130)):
        watched.types("\x03")
        assert watched.ends() == status
        assert "Traceback" not in watched.text
        assert "Abort" not in watched.text
        assert watched.raw.rindex("\x1b[?25h") > watched.raw.rindex("\x1b[?25l")


def test_watch_without_a_terminal_shows_the_queues_once(run, client):
    client.create("video")
    assert re.search(r"^video +1 ", said(run("jobs", "watch")), re.MULTILINE)
    assert "jobbridge queues --json" in refusal(run("jobs", "watch", "--json"))
