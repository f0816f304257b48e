"""What a handler keeps on the bridge: its log and a checkpoint, and what becomes of them where it takes neither."""

from __future__ import annotations

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker.claim import read_claim


def test_log_and_last_checkpoint_arrive_before_the_result_under_the_lease(bridge, run):
    bridge.script("poll", jobs(claim(checkpoint="what was before")))
    run("keeps")
    result = bridge.next("result")
    assert result.body["content"] == "what was before: a checkpoint has at most 1048576 bytes"
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


@pytest.mark.parametrize("answer", [Say(404), problem(503, "unavailable"), problem(422, "validation"), Say(drop=True)])
def test_a_bridge_that_takes_neither_still_gets_the_result(bridge, run, answer):
    bridge.always("log", answer)
    bridge.always("checkpoint", answer)
    bridge.script("poll", jobs(claim()))
    run("keeps")
    assert bridge.next("result").body["success"]


@pytest.mark.parametrize("checkpoint", [5, ["x"], "x" * (2**20 + 1), None])
def test_a_checkpoint_that_is_none_costs_no_job(checkpoint):
    assert read_claim(claim(checkpoint=checkpoint)).checkpoint is None
