"""The client commands, jobs, queues, workers and continuations: real processes against a running bridge."""

import http.server
import json
import re
import subprocess
import sys
import threading
import uuid

import pytest

from bridge.embedded.ports import free_port
from tests.support.client import ok
from tests.support.command import Started, Terminal, environment, jobbridge, refusal
from tests.support.waiting import wait_until

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def settings(client):
    return {"BRIDGE_URL": client.url, "BRIDGE_KEY": client.key}


@pytest.fixture
def run(tmp_path, settings):
    """Runs a command as this test's tenant, to its end."""

    def begin(*arguments, **changes):
        return jobbridge(*arguments, cwd=tmp_path, **{**settings, **changes})

    return begin


@pytest.fixture
def terminal(tmp_path, settings):
    """Starts a command in a terminal; killed with the test."""
    started = []

    def begin(*arguments, width=80):
        started.append(Terminal(*arguments, cwd=tmp_path, width=width, **settings))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.fixture
def begin(tmp_path, settings):
    """Starts a command without a terminal; killed with the test."""
    started = []

    def start(*arguments):
        started.append(Started(*arguments, cwd=tmp_path, **settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def document(done) -> dict:
    return json.loads(said(done))


def lines(done, status: int) -> list[str]:
    """What a command that did not do it said of it on standard error."""
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def end(client, bridge, how: str) -> str:
    """A job that came to this end."""
    job_id = client.create()
    if how == "cancelled":
        ok(client.post(f"{job_id}/cancel"))
    elif how == "timeout":
        bridge.sql("UPDATE remote_jobs SET timeout_at = now() WHERE id = :id", id=job_id)
        wait_until(lambda: client.status(job_id) == "timeout", "the queue clock")
    else:
        ok(client.result(client.claim(), success=how == "completed", retryable=False, error_message="It is empty."))
    return job_id


# The API's own JSON.


@pytest.mark.slow
def test_json_is_what_the_api_says(run, client, bridge):
    job_id = end(client, bridge, "failed")
    end(client, bridge, "completed")
    client.post("/api/v1/workers/gpu-1/pause", {"reason": "dust", "seconds": 3000})
    for arguments, path in [
        (("jobs", "list"), ""),
        (("jobs", "list", "--status", "failed"), "?status=failed"),
        (("jobs", "show", job_id), job_id),
        (("jobs", "explain", job_id), f"{job_id}/explain"),
        (("workers",), "/api/v1/workers"),
        (("workers", "list"), "/api/v1/workers"),
        (("continuations", "--state", "sent"), "/api/v1/continuations?state=sent"),
        (("continuations", "list"), "/api/v1/continuations"),
    ]:
        # What goes on by itself (hand-over, the sight of workers) may lie between the two looks.
        wait_until(lambda a=arguments, p=path: document(run(*a, "--json")) == ok(client.get(p)), f"{arguments}", 60)
    numbers = document(run("queues", "--json"))
    assert numbers["by_status"] == {"failed": 1, "completed": 1}
    assert set(numbers) == set(ok(client.get("statistics")))


@pytest.mark.slow
def test_the_lists_filters_are_options(run, client):
    first = client.create("audio", ingestion_task_id="one")
    second = client.create("video", ingestion_task_id="two")
    client.claim("video", "gpu-7")
    middle = client.job(second)["created_at"]
    for options, found in [
        (["--status", "pending"], [first]),
        (["--content-type", "video"], [second]),
        (["--type", "audio"], [first]),
        (["--ingestion-task-id", "two"], [second]),
        (["--worker-id", "gpu-7"], [second]),
        (["--created-before", middle], [first]),
        (["--created-after", "2001-01-01"], [second, first]),
        (["--created-after", "2999-12-31T00:00:00+02:00"], []),
    ]:
        jobs = document(run("jobs", "list", *options, "--json"))["jobs"]
        assert [job["job_id"] for job in jobs] == found, options
    assert said(run("jobs", "list", "--status", "timeout")) == "No job matches.\n"


def test_a_page_says_how_the_next_one_is_opened(run, client):
    ids = [client.create() for _ in range(3)]
    page = said(run("jobs", "list", "--limit", "2"))
    cursor = re.search(r"There are more: --cursor (\S+)\n\Z", page)
    assert cursor, page
    assert [job_id for job_id in reversed(ids) if job_id in page] == [ids[2], ids[1]]
    rest = said(run("jobs", "list", "--limit", "2", "--cursor", cursor[1]))
    assert ids[0] in rest
    assert "--cursor" not in rest


# Tables.


@pytest.fixture
def busy(client, bridge):
    """A tenant with something in every table, and long words in it; a failed job's ID."""
    failed = end(client, bridge, "failed")
    end(client, bridge, "completed")
    client.create("a-content-type-of-fifty-characters-that-are-many-x", ingestion_task_id="t" * 255)
    client.create("video", available_at="2999-01-01T00:00:00+00:00")
    held = client.claim("audio", "w" * 255) if client.create("audio") else None
    ok(client.heartbeat(held, progress=0.4, message="m" * 500))
    client.post(f"/api/v1/workers/{'w' * 255}/pause", {"reason": "r " * 250})
    bridge.sql(
        "UPDATE remote_jobs SET created_at = created_at - interval '200 minutes' WHERE tenant = :t", t=client.tenant
    )
    return failed


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_and_tell_ages_and_whole_ids(terminal, client, busy, width):
    ids = [job["job_id"] for job in ok(client.get(""))["jobs"]]
    for arguments in (
        ["jobs", "list"],
        ["jobs", "show", busy],
        ["jobs", "explain", ids[0]],
        ["jobs", "explain", busy],
        ["queues", "--sweeps"],
        ["workers"],
        ["continuations", "--state", "sent"],
    ):
        shown = terminal(*arguments, width=width)
        assert shown.ends() == 0, shown.text
        assert max(map(len, shown.text.splitlines())) <= width, shown.text
        if arguments[:2] == ["jobs", "list"]:
            assert [job_id for job_id in ids if job_id in shown.text] == ids
            assert shown.text.count(" 3 h ") == len(ids)
            assert not re.search(r"\d{4}-\d\d-\d\dT", shown.text)
            for state in ("pending", "processing", "failed", "completed"):
                assert f" {state} " in shown.text
            assert ("40 %" in shown.text) == (width == 120)


def test_without_a_terminal_a_table_is_wide(run, client):
    client.create(ingestion_task_id="a-task-with-a-name-that-is-longer-than-it-would-be-shown-in-80-columns")
    assert "in-80-columns" in said(run("jobs", "list"))


def test_explain_says_the_apis_sentences(run, client):
    job_id = client.create("video")
    why = " ".join(said(run("jobs", "explain", job_id)).split())
    for sentence in ok(client.get(f"{job_id}/explain"))["sentences"]:
        assert sentence in why
    assert "No worker waits for `video`" in why


def test_show_has_the_whole_history(run, client, bridge):
    job_id = end(client, bridge, "failed")
    ok(client.post(f"{job_id}/retry"))
    shown = said(run("jobs", "show", job_id))
    for words in ("Attempts", "It is empty.", "Requests", "retry", "max_retries", "source_file_path", "w1"):
        assert words in shown


# Others' text.

HOSTILE = "[b]x[/no] :boom: \x1b]0;title\x07\x1b[2J\x9b31m\r\n\u202egnp"


def harmless(text: str) -> None:
    """Nothing in it is obeyed by a terminal, and nothing was taken for markup."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), repr(text)
    assert "[b]x[/no]" in text


@pytest.mark.slow
def test_others_text_commands_no_terminal(terminal, run, client):
    job_id = client.create(ingestion_task_id=HOSTILE, task_options={HOSTILE: HOSTILE})
    ok(client.heartbeat(client.claim("audio", HOSTILE), message=HOSTILE))
    client.post("/api/v1/workers/gpu-1/pause", {"reason": HOSTILE})
    for arguments in (["jobs", "list"], ["jobs", "show", job_id], ["jobs", "explain", job_id], ["workers"]):
        shown = terminal(*arguments, width=120)
        assert shown.ends() == 0, shown.text
        harmless(shown.text)
        for bad in ("\x1b]", "\x1b[2J", "\x9b"):
            assert bad not in shown.raw
        harmless(said(run(*arguments)))
        plain = said(run(*arguments, "--json"))
        assert re.fullmatch(r"[\n\x20-\x7e]*", plain)
        assert any(HOSTILE in told for told in _texts(json.loads(plain)))


def _texts(part):
    if isinstance(part, dict):
        for name, inner in part.items():
            yield from (name, *_texts(inner))
    elif isinstance(part, list):
        for inner in part:
            yield from _texts(inner)
    elif isinstance(part, str):
        yield part


def test_watching_tells_others_text_without_commands_either(begin, client):
    job_id = client.create()
    watched = begin("jobs", "watch", job_id, "--every", "0.1")
    watched.says("pending")
    job = client.claim("audio", HOSTILE)
    watched.says("processing")
    ok(client.result(job, success=False, retryable=False, error_message=HOSTILE))
    assert watched.ends() == 4
    harmless(watched.text)


# Submit.


def test_each_file_becomes_a_job_with_these_fields(run, client, tmp_path):
    first, second = client.source(name=f"a b {uuid.uuid4()}.pdf"), client.source()
    options = ["--option", "language=en", "--option", "pages=5", "--option", 'text="5"', "--option", "n=NaN"]
    more = ["--priority", "high", "--max-retries", "0", "--timeout-seconds", "60", "--queue-timeout-seconds", "600"]
    begun = document(run("jobs", "submit", first, second, "--type", "document", *options, *more, "--json"))
    jobs = [client.job(job["job_id"]) for job in begun["jobs"]]
    assert [job["source_file_path"] for job in jobs] == [first, second]
    assert [job["ingestion_task_id"] for job in jobs] == [path.rpartition("/")[2] for path in (first, second)]
    for job in jobs:
        assert job["task_options"] == {"language": "en", "pages": 5, "text": "5", "n": "NaN"}
        wanted = ("document", "high", 0, 60, 600)
        names = ("content_type", "priority", "max_retries", "timeout_seconds", "queue_timeout_seconds")
        assert tuple(job[name] for name in names) == wanted


def test_a_relative_file_is_below_the_current_directory(client, settings):
    path = client.source()
    done = jobbridge("jobs", "submit", path.rpartition("/")[2], "--type", "web", cwd=client.files, **settings)
    assert path.rpartition("/")[2] in said(done)
    assert [job["source_file_path"] for job in ok(client.get(""))["jobs"]] == [path]


def test_a_submission_may_name_task_and_moment(run, client):
    moment = ["--available-at", "2999-01-01"]
    begun = document(
        run("jobs", "submit", client.source(), "--type", "web", "--ingestion-task-id", "7", *moment, "--json")
    )
    job = client.job(begun["jobs"][0]["job_id"])
    assert (job["ingestion_task_id"], job["available_at"]) == ("7", "2999-01-01T00:00:00+00:00")


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
    command = ["jobs", "submit", client.source(), client.source(), "--type", "audio", "--wait"]
    waiting = begin(*command)
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


# Watch.


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


# Cancel and retry.


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


# Workers and continuations.


@pytest.mark.slow
def test_a_worker_is_paused_and_resumed_whatever_its_name(run, client):
    name = "gpu/1 ?#%ä"
    assert said(run("workers", "pause", name, "--reason", "dust", "--seconds", "7200")).startswith(
        f"{name} is paused for "
    )
    assert re.search(r"by operator: dust", said(run("workers")))
    wait_until(lambda: client.poll(worker_id=name).status_code == 429, "the pause to be felt")
    assert document(run("workers", "resume", name, "--json")) == {"worker_id": name, "paused": False, "until": None}
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


# What goes wrong.

SOME = [
    ("jobs", "list"),
    ("jobs", "submit", "/x", "--type", "web"),
    ("jobs", "cancel", "--type", "web", "--yes"),
    ("jobs", "watch", UNKNOWN),
    ("jobs", "watch"),
    ("workers",),
    ("continuations", "resend", UNKNOWN),
]


@pytest.mark.slow
def test_a_bridge_that_cannot_be_reached_is_one_line_and_status_3(run):
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in SOME:
        line = refusal(run(*arguments, BRIDGE_URL=url), 3)
        assert line == f"jobbridge: {url} cannot be reached: Connection refused"
    assert "http://nosuch.invalid cannot be reached" in refusal(run("queues", "--url", "http://nosuch.invalid"), 3)


class Somebody(http.server.BaseHTTPRequestHandler):
    """Answers what is no bridge's answer; remembers what it was sent."""

    answer = (200, "text/html", b"<h1>Welcome</h1>")
    heard: list[str | None] = []

    def do_GET(self):
        status, kind, body = self.answer
        self.heard.append(self.headers["Authorization"])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def somebody():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Somebody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<h1>Welcome</h1>"),
        (200, "application/json", b'{"jobs": 1}'),
        (200, "application/json", b"[]"),
        (200, "application/json", b"{"),
        (502, "text/html", b"<h1>Bad Gateway</h1>"),
        (301, "text/html", b""),
    ],
)
def test_somebody_else_at_the_address_is_not_taken_for_the_bridge(run, somebody, monkeypatch, answer):
    monkeypatch.setattr(Somebody, "answer", answer)
    line = refusal(run("jobs", "list", BRIDGE_URL=somebody), 3)
    assert f"what answers at {somebody} is not the bridge ({answer[0]} " in line


def test_the_key_is_the_settings_and_not_that_of_a_netrc(run, somebody, tmp_path, monkeypatch):
    monkeypatch.setattr(Somebody, "heard", [])
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    run("jobs", "list", BRIDGE_URL=somebody, BRIDGE_KEY="the-key", NETRC=str(tmp_path / "netrc"))
    assert Somebody.heard == ["Bearer the-key"]


def test_a_key_that_does_not_count_or_may_not_is_status_1(run, bridge, client):
    assert "jb_nosuch" not in refusal(run("queues", BRIDGE_KEY="jb_nosuch"), 1)
    assert "(BRIDGE_KEY is not set)" in refusal(run("queues", BRIDGE_KEY=""), 1)
    reader = bridge.key(client.tenant, ("read",))
    assert "scope" in refusal(run("jobs", "cancel", UNKNOWN, BRIDGE_KEY=reader), 1)


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        (["queues"], {"BRIDGE_URL": ""}, "BRIDGE_URL is not set"),
        (["queues"], {"BRIDGE_URL": "bridge.example.org"}, "must look like https://bridge.example.org"),
        (["queues"], {"BRIDGE_URL": "https://me:secret@bridge.example.org"}, "must look like"),
        (["queues", "--url", "http://[::1"], {}, "must look like"),
        (["queues", "--url", "http://a:99999"], {}, "must look like"),
        (["queues"], {"BRIDGE_KEY": "two words"}, "BRIDGE_KEY contains an invalid character"),
        (["queues"], {"BRIDGE_KEY": "a\nX-Evil: 1"}, "BRIDGE_KEY contains an invalid character"),
        (["queues"], {"BRIDGE_KEY": "schlüssel"}, "BRIDGE_KEY contains an invalid character"),
        (["jobs", "show", "../statistics"], {}, "../statistics is not a job ID"),
        (["jobs", "cancel", ""], {}, "is not a job ID"),
        (["jobs", "list", "--created-after", "yesterday"], {}, "--created-after yesterday: write 2027-01-31"),
    ],
)
def test_wrong_settings_and_usage_are_one_line_and_status_2(run, arguments, changes, words):
    line = refusal(run(*arguments, **changes))
    assert words in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "list", "--status", "nosuch"],
        ["jobs", "list", "--limit", "501"],
        ["jobs", "submit"],
        ["jobs", "submit", "x"],
        ["jobs", "list", "--key", "jb_x"],
        ["workers", "nosuch"],
        ["workers", "pause", "w"],
        ["continuations", "resend", "--state", "sent"],
    ],
)
def test_usage_that_makes_no_sense_is_status_2(run, arguments):
    assert lines(run(*arguments), 2)


def test_what_the_bridge_says_about_filters_is_told_field_by_field(run):
    done = run("jobs", "list", "--type", "A B", "--worker-id", "w" * 256)
    assert lines(done, 1) == [
        "jobbridge: The request was refused.",
        "content_type: Is no content type.",
        "worker_id: Length must be between 1 and 255.",
    ]


def test_the_option_wins_over_the_setting_and_python_m_bridge_is_the_same(client, settings, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "queues", "--url", f"{client.url}/", "--json"],
        cwd=tmp_path,
        env=environment(**{**settings, "BRIDGE_URL": "http://127.0.0.1:1"}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert document(done)["by_status"] == {}


def test_a_terminal_that_knows_ascii_only_gets_question_marks(run, client):
    client.create(ingestion_task_id="Bericht für Zürich")
    assert "Bericht f?r Z?rich" in said(run("jobs", "list", PYTHONIOENCODING="ascii", LC_ALL="C"))


def test_the_help_tells_the_exit_status(run):
    for group in ("jobs", "workers", "continuations", "queues"):
        text = " ".join(said(run(group, "--help")).split())
        assert "0 done; 1 the bridge refused" in text
        assert "3 the bridge cannot be reached" in text
    assert "4 failed; 5 timeout; 6 cancelled" in " ".join(said(run("jobs", "watch", "--help")).split())
