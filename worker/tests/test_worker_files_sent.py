"""The files of a result on their way to a bridge that takes none, refuses them, or has them already."""

from __future__ import annotations

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import uploads
from bridge_worker.answers import CallFailed
from bridge_worker.attempt import Attempt, MachineFault
from bridge_worker.result_files import Files
from bridge_worker.results import Results


@pytest.fixture
def files(tmp_path):
    (tmp_path / "text").write_text("a long text")
    return Files(text=tmp_path / "text")


def test_a_bridge_without_uploads_is_sent_a_text_in_the_result_as_far_as_it_may_go(
    bridge, client, held, files, monkeypatch
):
    bridge.always("uploads", Say(404))
    files.text.write_bytes(b"a long\r\ntext\r")
    assert uploads.Sending(client, held).send(files) == {"content": "a long\r\ntext\r"}
    monkeypatch.setattr(uploads, "INLINE_LIMIT", 5)
    with pytest.raises(CallFailed, match="404"):
        uploads.Sending(client, held).send(files)


def test_an_upload_elsewhere_is_sent_nothing_more(bridge, client, held, files):
    bridge.script("uploads", Say(201, {}, {"Location": "https://elsewhere.example/api/v1/uploads/u"}))
    with pytest.raises(CallFailed, match="elsewhere; the key is not sent there"):
        uploads.Sending(client, held).send(files)


def test_bytes_that_arrived_although_the_answer_said_otherwise_are_not_sent_again(bridge, client, held, files):
    bridge.script("uploads", Say(201, {}, {"Location": "/api/v1/uploads/u", "Upload-Offset": "0"}))
    bridge.script("upload", Say(200, data=b"", headers={"Upload-Offset": "11"}))
    assert uploads.Sending(client, held).send(files) == {"result_upload": "u", "content": None}
    bridge.next("upload")
    assert bridge.calls_left("upload") == 0


def test_reading_ends_with_the_job_and_with_the_file(held, files):
    with files.text.open("rb") as file:
        shorter = uploads._Rest(file, 12, held.is_over)
        assert shorter.read(100) == b"a long text"
        with pytest.raises(OSError, match="Input/output"):
            shorter.read(100)
        held.abandon("cancelled")
        with pytest.raises(OSError, match="no longer wanted"):
            uploads._Rest(file, 1, held.is_over).read()


@pytest.mark.parametrize(
    ("refusal", "outcome"), [(problem(413, "too_large"), "failed"), (problem(409, "lease_lost"), "dropped")]
)
def test_files_that_are_refused_fail_the_job_unless_it_is_over(bridge, run, refusal, outcome):
    bridge.script("poll", jobs(claim()))
    bridge.always("uploads", refusal)
    running = run("with_artifact")
    bridge.next("poll"), bridge.next("poll")
    assert running.slots.wait(lambda: running.outcomes, 60)
    assert running.outcomes == [outcome]
    if outcome == "failed":
        assert "the result's files were not sent: 413" in bridge.next("result").body["error_message"]
    assert bridge.calls_left("result") == 0


def test_a_file_that_cannot_be_read_is_the_machines_fault(client, held, tmp_path):
    attempt = Attempt(client, Results(client), held, None, tmp_path)
    attempt._files = Files(text=tmp_path / "gone")
    with pytest.raises(MachineFault, match="files could not be read"):
        attempt._send_files({})
