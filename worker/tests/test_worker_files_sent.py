"""The files of a result on their way to a bridge that takes none, refuses them, or has them already."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import send_files, transfers
from bridge_worker.answers import CallFailed
from bridge_worker.attempt import Attempt, MachineFault
from bridge_worker.result_files import Files
from bridge_worker.results import Results
from jobbridge_client.errors import BadFile
from jobbridge_client.steps import FilePart


@pytest.fixture
def files(tmp_path):
    (tmp_path / "text").write_text("a long text")
    return Files(text=tmp_path / "text")


def test_a_bridge_without_uploads_is_sent_a_text_in_the_result_as_far_as_it_may_go(
    bridge, client, held, files, monkeypatch
):
    bridge.always("uploads", Say(404))
    files.text.write_bytes(b"a long\r\ntext\r")
    assert send_files.Sending(client, held).send(files) == {"content": "a long\r\ntext\r"}
    monkeypatch.setattr(send_files, "INLINE_LIMIT", 5)
    with pytest.raises(CallFailed, match="404"):
        send_files.Sending(client, held).send(files)


def test_an_upload_elsewhere_is_sent_nothing(bridge, client, held, files, elsewhere):
    """Only the ID in the answer counts, as one part of a path at the bridge's own address."""
    state = {"upload_id": f"{elsewhere.url}/api/v1/uploads/0", "length": 11, "received": 0, "sha256": None}
    bridge.script("uploads", Say(201, state, {"Location": state["upload_id"]}))
    bridge.always("upload", Say(403))
    with pytest.raises(CallFailed, match="403"):
        send_files.Sending(client, held).send(files)
    assert elsewhere.is_unasked()


def test_bytes_that_arrived_although_the_answer_said_otherwise_are_not_sent_again(bridge, client, held, files):
    lost = threading.Event()

    def arrives(call):
        bridge.append(call)
        lost.set()
        return Say(409, data=b"") if call.headers["upload-offset"] == "0" else problem(409, "wrong_offset")

    bridge.script("uploads", lambda call: bridge.announce(replace(call, raw=b"")))
    bridge.script("upload", arrives)
    assert send_files.Sending(client, held).send(files) == {"result_upload": "0", "content": None}
    assert lost.is_set()
    assert [bridge.next("upload").method for _ in range(2)] == ["PATCH", "GET"]
    assert bridge.calls_left("upload") == 0


PAGE = Say(data=b"<html>We are back soon.</html>", headers={"Content-Type": "text/html"})


def test_a_proxys_page_costs_no_result(bridge, client, held, files):
    bridge.script("uploads", PAGE, lambda call: bridge.announce(replace(call, raw=b"")))
    bridge.script("upload", PAGE, PAGE)  # to the PATCH, and to the GET that follows
    assert send_files.Sending(client, held).send(files) == {"result_upload": "0", "content": None}
    assert bridge.uploads == [(11, b"a long text")]


def altered(bridge):
    """Answer an announcement as a bridge that received other bytes."""
    return lambda call: bridge.announce(replace(call, raw=call.raw[::-1]))


def test_bytes_that_changed_on_the_way_are_sent_once_more(bridge, client, held, files):
    bridge.script("uploads", altered(bridge))
    assert send_files.Sending(client, held).send(files) == {"result_upload": "1", "content": None}
    bridge.always("uploads", altered(bridge))
    with pytest.raises(CallFailed, match="did on the way") as failed:
        send_files.Sending(client, held).send(files)
    assert failed.value.retryable
    assert len(bridge.uploads) == 4


@pytest.mark.parametrize("answer", [Say(400), problem(460, "checksum_mismatch"), Say(409)])
def test_bytes_that_are_refused_again_and_again_are_given_up(bridge, client, held, files, monkeypatch, answer):
    monkeypatch.setattr(held.over, "wait", lambda _seconds: False)
    bridge.script("uploads", lambda call: bridge.announce(replace(call, raw=b"")))
    bridge.always("upload", lambda call: answer if call.method == "PATCH" else bridge.append(call))
    with pytest.raises(CallFailed, match=str(answer.status)):
        send_files.Sending(client, held).send(files)
    assert bridge.calls_left("upload") == 7  # four PATCHes, and three times the offset


@pytest.mark.parametrize("state", [
    {"upload_id": "0", "length": 11, "received": -(2**70)}, {"upload_id": "0", "length": 11, "received": 12},
    {"upload_id": "\ud800", "length": 11, "received": 11}, {"upload_id": "", "length": 11, "received": 0},
    {"upload_id": "0", "length": True, "received": 0}, {"upload_id": "0" * 101, "length": 11, "received": 0},
])  # fmt: skip
def test_a_state_that_no_upload_has_is_a_failed_call(bridge, client, held, files, state):
    bridge.script("uploads", Say(201, state))
    with pytest.raises(CallFailed, match="not understood"):
        send_files.Sending(client, held).send(files)


def test_sending_ends_with_the_job_and_with_the_file(client, held, files):
    with files.text.open("rb") as file:
        check = send_files.Sending(client, held)._check
        shorter = transfers._Body(FilePart(file, 0, 12), check)
        sent = iter(shorter)
        assert (len(shorter), next(sent)) == (12, b"a long text")
        with pytest.raises(BadFile, match="became shorter"):
            next(sent)
        held.abandon("cancelled")
        with pytest.raises(transfers.NotWanted):
            next(iter(transfers._Body(FilePart(file, 0, 1), check)))


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
