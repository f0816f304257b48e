"""What the client commands show, as JSON and as tables: real processes against a running bridge."""

import json
import re

import pytest

from tests.support.client import ok
from tests.support.client_commands import document, end, said
from tests.support.waiting import wait_until


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
        wait_until(lambda a=arguments, p=path: document(run(*a, "--json")) == ok(client.get(p)), f"{arguments}")
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


@pytest.fixture
def busy(client, bridge):
    """Return a tenant with something in every table, and long words in it; a failed job's ID."""
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
            assert "40 %" in shown.text
            assert "It is empty." in shown.text


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


@pytest.mark.slow
def test_logs_are_followed_until_the_job_has_ended_and_a_batch_is_counted(run, client):
    batch = ok(client.post("batch", {"jobs": [client.fields(), client.fields("video")]}))
    job = client.claim()
    token = {"X-Lease-Token": job["lease_token"]}
    for number in range(120):
        ok(client.post(f"{job['job_id']}/log", {"lines": [f"line {number} [red] \x1b[31m"]}, headers=token))
    ok(client.result(job))
    told = said(run("jobs", "logs", job["job_id"], "--follow"))
    assert [line.split()[:2] for line in told.splitlines()] == [["line", str(number)] for number in range(120)]
    assert "[red]" in told
    assert "\x1b" not in told
    pieces = [json.loads(line) for line in said(run("jobs", "logs", job["job_id"], "--json")).splitlines()]
    assert [piece["n"] for piece in pieces] == list(range(1, 121))
    counted = said(run("jobs", "batch", batch["batch_id"]))
    assert "is under way" in counted
    assert {"completed", "pending"} <= set(counted.split())
