"""`jobbridge jobs result`, `jobs submit --output` and `workers evict`: real processes against a running bridge."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.cli.remote import files
from tests.support.client import ok
from tests.support.of_an_attempt import sent


def test_a_result_is_shown_and_written_as_it_is(run, client, tmp_path):
    content = "first\n\x1b[31mé\n"
    job_id = client.create("result")
    assert "is pending" in run("jobs", "result", job_id).stderr
    ok(client.result(client.claim("result"), content=content, metadata={"pages": 2}))
    done = run("jobs", "result", job_id)
    assert (done.returncode, done.stdout) == (0, content)
    assert json.loads(run("jobs", "result", job_id, "--json").stdout)["metadata"] == {"pages": 2}
    assert run("jobs", "result", job_id, "-o", "text.txt").returncode == 0
    assert (tmp_path / "text.txt").read_bytes() == content.encode()
    for place in ("-", "/dev/stdout"):  # a pipe here
        assert run("jobs", "result", job_id, "-o", place).stdout == content
    assert run("jobs", "result", job_id, "-o", "/dev/null").returncode == 0
    full = run("jobs", "result", job_id, "-o", "/dev/full")
    assert (full.returncode, "/dev/full cannot be written: No space left" in full.stderr) == (2, True)
    missing = run("jobs", "result", job_id, "-o", "none/text.txt")
    assert (missing.returncode != 0, "cannot be written" in missing.stderr) == (True, True)


def test_artifacts_are_listed_and_fetched(run, client, tmp_path):
    job_id = client.create("artifacts")
    job = client.claim("artifacts")
    named = [{"name": "a [b].vtt", "upload": sent(client, job, b"WEBVTT"), "media_type": "text/vtt"}]
    ok(client.result(job, content=None, artifacts=named))
    assert run("jobs", "result", job_id, "-o", "text.txt").returncode == 0
    assert (tmp_path / "text.txt").read_bytes() == b""
    (listed,) = json.loads(run("jobs", "artifacts", job_id, "--json").stdout)["items"]
    assert (listed["name"], listed["size"], listed["media_type"]) == ("a [b].vtt", 6, "text/vtt")
    assert "a [b].vtt" in run("jobs", "artifacts", job_id).stdout
    done = run("jobs", "artifacts", job_id, "-o", "files")
    assert (done.returncode, done.stdout) == (0, "files/a [b].vtt\n")
    assert (tmp_path / "files" / "a [b].vtt").read_bytes() == b"WEBVTT"


def test_submit_waits_and_writes_the_result(run, client, tmp_path):
    source = client.source()
    with ThreadPoolExecutor(1) as pool:
        worked = pool.submit(lambda: ok(client.result(client.claim("output", wait=60), content="the text")))
        done = run("jobs", "submit", source, "--type", "output", "--output", "text.txt")
        worked.result()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "text.txt").read_text() == "the text"
    two = run("jobs", "submit", source, source, "--type", "output", "--output", "text.txt")
    assert (two.returncode, "one FILE" in two.stderr) == (2, True)


def test_a_worker_is_evicted(run, client):
    client.create("evict")
    client.claim("evict", worker_id="gone/1")
    assert "gone/1 held 1 job, now pending again" in run("workers", "evict", "gone/1").stdout


STREAMS = ["-", "/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "pipe", "link-to-pipe"]
FILES = ["new", "old", "link", "directory", "none/new", "/dev/shm/new", "loop", "a\0b"]


@pytest.mark.parametrize("place", [*STREAMS, *FILES])
def test_what_is_a_file_is_replaced_or_refused_and_what_is_none_is_written_into(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("old").write_text("old")
    Path("directory").mkdir()
    for name, target in (("link-to-pipe", "pipe"), ("link", "old"), ("loop", "loop")):
        os.symlink(target, name)
    assert files._is_stream(Path(place)) == (place in STREAMS)
