"""A long text and artifacts, from a worker that uploads them to a pipeline on another host."""

import hashlib
import os
import subprocess
import sys
import textwrap

import pytest

from bridge.cli.local.checkout import ROOT
from jobbridge_client import Conflict, NotFound
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.tus import announce, append

MIB = 2**20


def uploaded(client, job, content):
    """Return a worker's upload of the job that it holds."""
    token = {"X-Lease-Token": job["lease_token"]}
    place = announce(client, len(content), token, job_id=job["job_id"])
    assert append(client, place, 0, content, token).status_code == 204
    return place.rpartition("/")[2]


def test_a_long_text_and_artifacts_come_whole_however_often_the_connection_is_cut(either, client, tmp_path):
    text = ("ä line of the transcript\n" * 250_000).encode()
    files = {"subtitles.vtt": b"WEBVTT", "page 7 ä%2F?.png": os.urandom(3 * MIB), "empty": b""}
    job_id = client.create("audio")
    with pytest.raises(Conflict):
        either("artifacts", job_id)
    job = client.claim()
    named = [{"name": name, "upload": uploaded(client, job, content)} for name, content in files.items()]
    ok(client.result(job, content=None, result_upload=uploaded(client, job, text), artifacts=named))
    with FaultProxy.before(client.url) as proxy:
        proxy.cut_after(MIB, "down", times=2)
        through = proxy.url(client.url)
        saved = either("save_result", job_id, tmp_path / "text", url=through)
        assert saved.read_bytes() == text
        proxy.cut_after(MIB, "down")
        paths = either("save_artifacts", job_id, tmp_path / "files", url=through)
    assert {path.name: path.read_bytes() for path in paths} == files
    assert {path.parent for path in paths} == {tmp_path / "files"}
    told = {artifact.name: artifact for artifact in either("artifacts", job_id)}
    assert {name: one.sha256 for name, one in told.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    assert either("result", job_id).text == text.decode()
    one = either("save_artifact", job_id, "subtitles.vtt", tmp_path / "one")
    assert one.read_bytes() == b"WEBVTT"
    with pytest.raises(NotFound):
        either("save_artifact", job_id, "nosuch", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_the_ten_lines_of_the_readme_go_from_a_file_to_its_text_and_artifacts(bridge, client, tmp_path):
    block = (ROOT / "README.md").read_text().split("    # pip install ./client\n")[1].split("\n## ")[0]
    script = textwrap.dedent(block)
    assert len(script.strip().splitlines()) <= 10
    (tmp_path / "talk.mp4").write_bytes(b"moving pictures")
    key = bridge.key(client.tenant, ("submit", "read"))
    running = subprocess.Popen(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={"BRIDGE_URL": bridge.url, "BRIDGE_KEY": key},
    )  # fmt: skip
    job = client.claim("video")
    source = client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]})
    assert (source.content, job["task_options"]) == (b"moving pictures", {"language": "en"})
    artifact = {"name": "subtitles.vtt", "upload": uploaded(client, job, b"WEBVTT")}
    ok(client.result(job, content="hello world", artifacts=[artifact]))
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0
    assert said.splitlines()[0] == "hello world"
    assert (tmp_path / "talk-files" / "subtitles.vtt").read_bytes() == b"WEBVTT"


MEASURED = """
import os, resource
from jobbridge_client import Client

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

with Client(os.environ["BRIDGE_URL"], os.environ["BRIDGE_KEY"]) as bridge:
    bridge.page(limit=1)
    before = most()
    bridge.upload("large")
    bridge.save_result(os.environ["JOB"], "fetched")
    print(most() - before)
"""


def test_files_of_any_size_take_little_memory(bridge, client, tmp_path):
    size = 24 * MIB
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", size)
    client.create("audio")
    job = client.claim()
    ok(client.result(job, content=None, result_upload=uploaded(client, job, b"x" * size)))
    environment = {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": client.key, "JOB": job["job_id"]}
    command = [sys.executable, "-I", "-c", MEASURED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fetched").stat().st_size == size
    assert int(done.stdout) < 12, f"{done.stdout} MiB over idle for files of {size // MIB} MiB"
