"""Checkpoints that are files: on their way to the bridge, and from there to the next attempt."""

from __future__ import annotations

import base64
import os
import threading
from dataclasses import replace

import pytest
from scripted_bridge import Say, claim, digest, jobs, problem

from bridge_worker import keeping
from bridge_worker.heartbeat import beating
from bridge_worker.job import Job
from bridge_worker.keeping import CheckpointFile, take_left, told_of
from bridge_worker.send_kept import drop_checkpoints, send_checkpoint, send_checkpoint_aside

LARGE = "ü" * 2**19 + "x"


@pytest.fixture
def place(tmp_path):
    """Return a directory of the worker's."""
    (tmp_path / "worker").mkdir()
    return tmp_path / "worker"


@pytest.fixture
def save(tmp_path, held):
    """Return a function that saves as a handler does, and tells the worker of it as its process does."""
    (tmp_path / "job").mkdir()
    (tmp_path / "worker").mkdir()

    def saved(what):
        job = Job(claim(), directory=tmp_path / "job")
        job.save_checkpoint(what)
        left = take_left(told_of(job.kept.take_checkpoint(), tmp_path / "job"), tmp_path / "job", tmp_path / "worker")
        held.kept.replace(left)
        return left

    return saved


def files_in(directory):
    return list(directory.iterdir())


@pytest.mark.parametrize(
    ("what", "content", "media_type"),
    [(LARGE, LARGE.encode(), "text/plain"), (b"", b"", "application/octet-stream"),
     (bytearray(b"ab"), b"ab", "application/octet-stream"), (memoryview(b"ab"), b"ab", "application/octet-stream")],
)  # fmt: skip
def test_what_is_no_short_text_is_left_in_a_file(save, what, content, media_type):
    left = save(what)
    assert (left.path.read_bytes(), left.media_type) == (content, media_type)


def test_a_file_is_kept_as_it_was(save, tmp_path):
    (tmp_path / "state").write_bytes(b"first")
    left = save(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"second")
    assert left.path.read_bytes() == b"first"
    no_bytes = memoryview(b"abcd")[::2]  # refused once its file is open
    for wrong, error in (
        (7, TypeError), (None, TypeError), (tmp_path / "none", FileNotFoundError), (no_bytes, BufferError),
    ):  # fmt: skip
        with pytest.raises(error):
            save(wrong)
    assert files_in(tmp_path / "job") == []


def test_a_checkpoint_replaces_the_one_before_and_its_file(save, held, tmp_path):
    save(b"first")
    second = save(b"second")
    assert files_in(tmp_path / "worker") == [second.path]
    held.kept.put_back("sent before and refused")
    assert held.kept.take_checkpoint() is second
    held.kept.put_back(second)
    save("third")
    assert files_in(tmp_path / "worker") == []
    assert held.kept.take_checkpoint() == "third"
    assert not held.kept.has_checkpoint()


@pytest.mark.parametrize("name", ["../checkpoint", "checkpoint", f"checkpoint-{'0' * 32}", f"checkpoint-{'1' * 32}", 7])
def test_what_a_process_told_and_did_not_leave_is_no_checkpoint(tmp_path, place, name, caplog):
    (tmp_path / f"checkpoint-{'0' * 32}").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "checkpoint")
    assert take_left({"checkpoint_file": name}, tmp_path, place) is None
    assert take_left({"checkpoint": True}, tmp_path, place, "j1") is None
    assert "job=j1 a checkpoint is dropped, as it could not be taken: the handler's process left no file" in caplog.text
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").write_bytes(b"x" * (keeping.CHECKPOINT_BYTES + 1))
    assert take_left({"checkpoint": True}, tmp_path, place) is None
    assert take_left({}, tmp_path, place) is None


def halfway(bridge):
    """Answer an announcement as if two of the bytes that came with it had arrived."""
    return lambda call: bridge.announce(replace(call, raw=call.raw[:2]))


def test_a_bridge_that_has_no_room_is_asked_again_later_and_the_upload_goes_on(bridge, client, held, save, tmp_path):
    bridge.script("uploads", problem(429, "too_many", Retry_After="60"), halfway(bridge))
    bridge.script("upload", Say(drop=True))
    save(b"first")
    send_checkpoint(client, held)  # refused
    assert bridge.calls_left("checkpoint") == 0
    send_checkpoint(client, held)  # broken off
    save(b"second")
    bridge.uploads[0] = 5, b"first"  # it arrived after all
    send_checkpoint(client, held)
    named = [bridge.next("checkpoint").body for _ in range(2)]
    assert [one["checkpoint_upload"] for one in named] == ["0", "1"]
    assert bridge.uploads == [(5, b"first"), (6, b"second")]
    assert named[0]["lease_token"] == claim()["lease_token"]
    assert files_in(tmp_path / "worker") == []
    assert not held.kept.has_checkpoint()


@pytest.mark.parametrize(
    "answer",
    [Say(404), problem(413, "too_large"), problem(409, "lease_lost"), Say(201, {}),
     Say(201, {"upload_id": "0", "length": 5, "received": "some"})],
)  # fmt: skip
def test_a_refused_checkpoint_is_dropped(bridge, client, held, save, tmp_path, answer):
    bridge.script("uploads", answer)
    save(b"first")
    send_checkpoint(client, held)
    assert (held.kept.has_checkpoint(), files_in(tmp_path / "worker")) == (False, [])


def test_a_checkpoint_whose_file_is_gone_is_dropped(client, held, tmp_path):
    held.kept.replace(CheckpointFile(tmp_path / "gone", "text/plain"))
    send_checkpoint(client, held)
    assert not held.kept.has_checkpoint()


def test_one_sends_at_a_time_and_none_once_the_result_goes(bridge, client, held, save):
    save("first")
    with held.kept.sending:
        send_checkpoint_aside(client, held)
    assert bridge.calls_left("checkpoint") == 0
    send_checkpoint_aside(client, held)
    assert bridge.next("checkpoint").body["checkpoint"] == "first"
    held.finished.set()
    save("second")
    send_checkpoint_aside(client, held)
    send_checkpoint(client, held)
    assert bridge.calls_left("checkpoint") == 0


def test_none_is_sent_while_the_files_of_a_result_are(bridge, run):
    sent = threading.Event()
    bridge.script("poll", jobs(claim()))
    bridge.script("uploads", lambda call: replace(bridge.announce(call), wait=sent))
    running = run("with_artifact", lease=1)
    bridge.next("uploads")
    (its,) = running.slots.busy()
    its.kept.replace("late")
    for _ in range(bridge.calls_left("heartbeat") + 2):
        bridge.next("heartbeat")
    sent.set()
    assert bridge.next("result").body["success"]
    assert bridge.calls_left("checkpoint") == 0


def test_an_upload_that_will_not_be_named_is_deleted(bridge, client, held, save, tmp_path):
    bridge.always("uploads", halfway(bridge))
    bridge.script("upload", problem(413, "too_large"))
    bridge.script("upload deleted", problem(503, "unavailable"))
    save(b"refused")
    send_checkpoint(client, held)
    bridge.script("upload", Say(503, data=b""), Say(503, data=b""))
    save(b"broken off")
    send_checkpoint(client, held)
    assert bridge.calls_left("upload deleted") == 1  # what has passed may go on
    held.ended.set()
    drop_checkpoints(client, held)
    assert [bridge.next("upload deleted").path for _ in range(2)] == ["/api/v1/uploads/0", "/api/v1/uploads/1"]
    assert files_in(tmp_path / "worker") == []


def test_an_upload_that_runs_as_the_attempt_ends_is_deleted_by_who_sends_it(bridge, client, held, save):
    ended = threading.Event()
    bridge.script("uploads", lambda call: replace(halfway(bridge)(call), wait=ended))
    save(b"first")
    send_checkpoint_aside(client, held)
    bridge.next("uploads")
    held.ended.set()
    drop_checkpoints(client, held)
    assert bridge.calls_left("upload deleted") == 0
    ended.set()
    bridge.next("upload deleted")


def test_an_older_bridge_that_takes_only_texts_is_sent_no_second_upload(bridge, client, held, save):
    bridge.script("checkpoint", problem(422, "validation"))
    for what in (b"first", b"second", "third"):
        save(what)
        send_checkpoint(client, held)
    assert bridge.calls_left("uploads") == bridge.calls_left("upload deleted") == 1
    assert [bridge.next("checkpoint").body.get("checkpoint") for _ in range(2)] == [None, "third"]


def test_heartbeats_go_on_where_no_thread_can_be_started_and_the_checkpoint_goes_later(
    bridge, client, held, save, monkeypatch
):
    start, refused = threading.Thread.start, []

    def start_or_not(self):
        if self.name.startswith("checkpoint-") and not refused:
            refused.append(self)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    save("kept")
    with beating(client, held, 1):
        assert bridge.next("checkpoint").body["checkpoint"] == "kept"
    assert refused


def uploaded(**told):
    return claim(checkpoint_upload={"size": 3, "sha256": "", "url": "", "media_type": None} | told, source_name="a.mp4")


@pytest.mark.parametrize("media_type", ["text/plain", None])
def test_the_next_attempt_has_what_was_uploaded_and_what_it_saves_arrives_before_its_failure(bridge, run, media_type):
    bridge.script("poll", jobs(uploaded(media_type=media_type)))
    head = {"ETag": '"one"', "Repr-Digest": digest(b"from before")}
    bridge.script(
        "checkpoint",
        problem(405, "method_not_allowed"),  # of a process that is not upgraded yet
        Say(data=b"from before", cut=5, headers=head),
        Say(206, data=b"before", headers=head | {"Content-Range": "bytes 5-10/11"}),
    )
    run("keeps_a_file")
    seen = "from before, None" if media_type else "None, from before"
    assert bridge.next("result").body["error_message"] == f"RuntimeError: {seen}"
    _, *asked = [bridge.next("checkpoint") for _ in range(4)]
    assert all(call.headers["x-lease-token"] == claim()["lease_token"] for call in asked)
    assert asked[1].headers["range"] == "bytes=5-"
    assert asked[2].body["checkpoint_upload"] == "0"
    kind = bridge.next("uploads").headers["upload-metadata"].split()[-1]
    assert base64.b64decode(kind) == b"application/octet-stream"


def test_a_long_text_keeps_its_line_ends(tmp_path):
    text = "a\r\nb\rc\n" * 150_000
    (tmp_path / keeping.EARLIER_FILE).write_bytes(text.encode())
    assert Job(claim(checkpoint_media_type="text/plain"), directory=tmp_path).checkpoint == text


@pytest.mark.parametrize(
    "answer",
    [problem(404, "not_found", X_Job_Status="processing"), problem(403, "forbidden", X_Job_Status="processing")],
    ids=["gone", "refused"],
)
def test_a_checkpoint_that_cannot_be_had_costs_no_job(bridge, run, answer):
    bridge.script("poll", jobs(uploaded()))
    bridge.script("checkpoint", answer)
    running = run("keeps_a_file")
    bridge.next("poll"), bridge.next("poll")
    assert running.slots.wait(lambda: running.outcomes, 60)
    assert running.outcomes == [{404: "failed", 403: "dropped"}[answer.status]]
    if answer.status == 404:
        assert bridge.next("result").body["error_message"] == "RuntimeError: None, None"


def test_the_second_try_in_a_fresh_process_has_the_checkpoint_too(bridge, run, tmp_path):
    bridge.script("poll", jobs(claim()), jobs(uploaded()))
    bridge.script("download", Say(data=b"good"), Say(data=b"abort"))
    bridge.script("checkpoint", Say(data=b"kept "))
    run("crashes_on_order")
    assert bridge.next("result").body["content"] == "good"
    assert "SIGABRT" in bridge.next("result").body["error_message"]
    assert (tmp_path / "noted").read_text() == "none kept kept "


def test_a_checkpoint_that_finds_no_room_is_the_machines_fault(bridge, run):
    bridge.script("poll", jobs(uploaded()))
    bridge.script("checkpoint", Say(data=b"x", headers={"Content-Encoding": "gzip"}))
    run("text")
    assert bridge.next("release").job_id == claim()["job_id"]
