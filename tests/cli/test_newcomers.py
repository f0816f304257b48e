"""What a newcomer meets: help that fits 80 columns, completion, keys from another machine, words that help."""

import json
import re
import socket
import subprocess
from functools import partial

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from bridge.cli.app import app
from tests.support.client import Client, ok
from tests.support.client_commands import said
from tests.support.command import JOBBRIDGE, environment, refusal
from tests.support.quick_command import quick_jobbridge as jobbridge
from tests.support.waiting import wait_until


def _commands(command, path=()):
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*path, name))


@pytest.mark.parametrize("path", list(_commands(get_command(app))), ids=" ".join)
def test_every_help_fits_80_columns_and_says_whole_sentences(path):
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}, prog_name="jobbridge")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    told = done.output.partition("\n")[2]  # the first line is the usage
    assert not re.search(r"<[a-z]|\.\.\.$", told, re.MULTILINE), told
    assert not re.search(r"\[\[|…", done.output), done.output


def test_a_mistyped_option_is_named_with_the_way_to_the_help(tmp_path):
    done = jobbridge("jobs", "list", "--state", "failed", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: No such option: --state")
    assert "Try 'jobbridge jobs list -h' for help." in done.stderr


def test_completion_is_installed_by_one_command_and_completes(tmp_path):
    around = {**environment(), "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run = {"capture_output": True, "text": True, "timeout": 60, "check": True, "cwd": tmp_path}
    for shell, place in (("bash", ".bash_completions/jobbridge.sh"), ("zsh", ".zfunc/_jobbridge"),
                         ("fish", ".config/fish/completions/jobbridge.fish")):  # fmt: skip
        subprocess.run([JOBBRIDGE, "--install-completion", shell], env=around, **run)
        assert "_JOBBRIDGE_COMPLETE" in (tmp_path / place).read_text()
    asked = {"_JOBBRIDGE_COMPLETE": "complete_bash", "COMP_WORDS": "jobbridge jobs sub", "COMP_CWORD": "2"}
    assert subprocess.run([JOBBRIDGE], env={**around, **asked}, **run).stdout.split() == ["submit"]


@pytest.mark.parametrize("command", [("keys", "list", "--local"), ("queues",), ("beat",)])
def test_every_command_warns_once_of_a_name_that_nothing_reads(tmp_path, command):
    done = jobbridge(*command, cwd=tmp_path, BRIDGE_PROT="8000")
    assert done.returncode == 2
    assert done.stderr.count("BRIDGE_PROT is not a known setting; did you mean BRIDGE_PORT?") == 1


@pytest.mark.parametrize(("command", "named", "other"), [
    (["flower", "--port"], "--port", ""), (["up", "--flower", "--flower-port"], "--flower", " with --flower-port"),
    (["up", "--port"], "BRIDGE_PORT", " with --port"),
])  # fmt: skip
def test_a_port_that_is_taken_is_named_with_the_option_for_another_and_nothing_is_started(
    tmp_path, command, named, other
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refusal(jobbridge(*command, port, cwd=tmp_path, BRIDGE_REDIS_URL="redis://127.0.0.1:1"))
    why = "cannot be used (Address already in use)"
    assert line == f"jobbridge: {named}: 127.0.0.1:{port} {why}: choose another{other}"
    assert not (tmp_path / ".bridge" / "postgres").exists()


def test_keys_are_made_listed_and_revoked_from_another_machine(run, client, bridge):
    keys = partial(run, "keys")
    given = ["--scopes", "work", "--content-types", "audio, video", "--expires", "2999-12-31"]
    key = said(keys("create", "gpu 1", *given)).strip()
    prefix = key[:11]
    assert Client(client.url, key, bridge.files, client.tenant).poll("audio").status_code == 200
    listed = next(line for line in keys("list").stdout.splitlines() if prefix in line)
    for words in ("gpu 1", client.tenant, "work", "audio,video", "2999-12-31", client.key[:11], "valid"):
        assert words in listed
    assert keys("revoke", prefix).stdout == "1 key revoked\n"
    wait_until(lambda: Client(client.url, key, bridge.files).poll("audio").status_code == 401, "the revocation")
    foreign = keys("create", "x", "--scopes", "work", "--tenant", "default")
    assert "only the keys of its own tenant" in refusal(foreign, 1)
    assert "--local and --url" in refusal(keys("list", "--local", "--url", "http://127.0.0.1:1"))


def test_a_key_is_shown_by_name_and_prefix(run, client):
    job_id = client.create()
    ok(client.result(client.claim(), success=False, retryable=False, error_message="It is empty."))
    ok(client.post(f"{job_id}/retry"))
    whole = client.job(job_id)
    expected = {"name": "test", "prefix": client.key[:11]}
    assert [row["key"] for row in (*whole["attempts"], *whole["requests"])] == [expected, expected]
    assert run("jobs", "show", job_id).stdout.count(f"test ({client.key[:11]})") == 2


@pytest.mark.parametrize(("tenant", "scopes", "named"), [
    ("default", ("admin",), True), (None, ("admin",), False), ("default", ("submit",), False)
])  # fmt: skip
def test_a_refused_path_names_the_roots_to_who_administers_them_alone(bridge, tenant, scopes, named):
    client = bridge.client(tenant, scopes)
    job = {"source_file_path": "/etc/hostname", "content_type": "audio", "ingestion_task_id": "x"}
    for path, body in (("", job), ("batch", {"jobs": [job]})):
        answer = client.post(path, body)
        assert answer.status_code == 422
        assert (str(bridge.files) in answer.text) == named, answer.text
        assert "one of the directories named by BRIDGE_SOURCE_ROOTS" in answer.text


def test_top_shows_queues_workers_and_rates_until_q_and_once_in_a_script(run, terminal, bridge, client):
    client.create("video")
    client.create()
    job = client.claim(worker_id="gpu-with-a-long-name-7")
    once = run("top", "--once")
    assert once.returncode == 0, once.stderr
    for words in ("1 wait, 1 run", "1 worker, 1 busy", "video", "audio", "gpu-with-a-long-name-7"):
        assert words in once.stdout
    assert "fail: see" not in once.stdout
    bridge.sql("INSERT INTO webhooks (job_id, n, tenant, key_id, url, kwargs, created_at, since, next_at, tries)"
               " VALUES (:id, 9, :tenant, gen_random_uuid(), 'https://x.org', '{}', now(), now(), 'infinity', 5)",
               id=job["job_id"], tenant=client.tenant)  # fmt: skip
    assert "webhooks list --state failing" in run("top", "--once").stdout
    assert set(json.loads(run("top", "--json").stdout)) == {"statistics", "workers"}
    live = terminal("top", "--every", "0.5")
    live.says("nothing ended since the last look")
    ok(client.result(job))
    live.says("/s completed")
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", live.raw.replace("\x1b[H", "\n"))
    assert max(map(len, drawn.splitlines())) <= 80
    live.types("q")
    assert live.ends() == 0
    assert "\x1b[?1049l" in live.raw, "the terminal is given back as it was"
