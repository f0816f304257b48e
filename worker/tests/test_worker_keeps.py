"""What a handler keeps on the bridge: its log and a checkpoint, and what becomes of them where it takes neither."""

from __future__ import annotations

import pytest
from scripted_bridge import Say, claim, jobs, problem
from waiting import until

from bridge_worker import download, send_kept
from bridge_worker.claim import read_claim


def test_log_and_last_checkpoint_arrive_before_the_result_under_the_lease(bridge, run):
    bridge.script("poll", jobs(claim(checkpoint="what was before")))
    run("keeps")
    result = bridge.next("result")
    assert result.body["error_message"] == "RuntimeError: what was before, None"
    token = claim()["lease_token"]
    sent = []
    while bridge.calls_left("log"):
        call = bridge.next("log")
        assert call.headers["x-lease-token"] == call.body["lease_token"] == token
        assert len(call.body["lines"]) <= 20
        sent += call.body["lines"]
    assert len(sent) == 50
    assert (sent[0], sent[49]) == (sent[0].replace("\x1b", ""), sent[0].replace("line 0", "line 49"))
    assert all("\n" not in line for line in sent)
    checkpoints = [bridge.next("checkpoint").body["checkpoint"] for _ in range(bridge.calls_left("checkpoint"))]
    assert checkpoints[-1] == "ü" * 2**19


def test_a_bridge_that_takes_neither_still_gets_the_result(bridge, run, monkeypatch):
    monkeypatch.setattr(send_kept, "LAST_SECONDS", 0.2)
    answers = {
        "404": Say(404), "503": problem(503, "unavailable"), "422": problem(422, "validation"), "lost": Say(drop=True),
    }  # fmt: skip
    for route in ("log", "checkpoint"):
        bridge.always(route, lambda call: answers[call.job_id])
    bridge.script("poll", *(jobs(claim(job_id)) for job_id in answers))
    run("keeps")
    assert [(call.job_id, call.body["error_message"]) for call in (bridge.next("result") for _ in answers)] == [
        (job_id, "RuntimeError: None, None") for job_id in answers
    ]


def test_a_checkpoint_that_finds_no_room_beside_the_handler_is_dropped_and_logged(bridge, run, caplog):
    bridge.script("poll", jobs(claim()))
    with caplog.at_level("INFO", "bridge_worker"):
        run("has_no_room")
        assert bridge.next("result").body["content"] == "good"
        until(lambda: "a checkpoint is dropped, as it could not be written" in caplog.text)
    assert bridge.calls_left("checkpoint") == 0


def test_a_checkpoint_that_the_store_has_cut_short_costs_no_job(bridge, run, monkeypatch, caplog):
    monkeypatch.setattr(download, "CHECKPOINT_SILENCE_SECONDS", 0.5)
    bridge.script("poll", jobs(claim(checkpoint_upload={"size": 11, "sha256": "", "url": "", "media_type": None})))
    bridge.always("checkpoint", Say(data=b"from before", cut=5, headers={"ETag": '"one"'}))
    run("text")
    assert bridge.next("result").body["content"] == "text"
    assert "begins without its checkpoint: only 5 bytes of it came in time" in caplog.text


@pytest.mark.parametrize("checkpoint", [5, ["x"], "x" * (2**20 + 1), None])
def test_a_checkpoint_that_is_none_costs_no_job(checkpoint):
    assert read_claim(claim(checkpoint=checkpoint)).checkpoint is None
