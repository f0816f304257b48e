"""What a worker tells of its machine: once a minute, bounded, never its key."""

from __future__ import annotations

import os

import pytest
from scripted_bridge import claim, jobs

from bridge_worker import facts as module
from bridge_worker.facts import Facts, gpus


def test_facts_are_told_once_in_a_period():
    facts = Facts(period=1000)
    due = facts.due()
    assert {"version", "host", "platform", "memory", "memory_free"} <= due.keys()
    assert 0 < due["memory_free"] <= due["memory"]
    assert all(len(value) <= module.MOST for value in due.values() if isinstance(value, str))
    again = facts.due()
    assert again == due | {"memory_free": again["memory_free"]}, "until it was taken"
    facts.told(due)
    assert facts.due() == {}
    assert Facts(period=0).due()


def test_a_heartbeat_tells_what_no_poll_has_told(bridge, run):
    bridge.script("poll", jobs(claim()))
    running = run("held", lease=1)
    bridge.next("heartbeat")
    running.slots._client._facts = Facts()
    while "version" not in (body := bridge.next("heartbeat").body):
        pass
    assert body["memory"] > 0
    assert "version" not in bridge.next("heartbeat").body


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "found"),
    [
        (
            "echo 'NVIDIA A100, 40960 MiB'; echo 'NVIDIA A100, 40960 MiB'",
            "NVIDIA A100, 40960 MiB; NVIDIA A100, 40960 MiB",
        ),
        ("echo broken; exit 9", ""),
        ("for i in 1 2 3 4 5 6 7 8 9; do echo 'NVIDIA A100, 40960 MiB'; done", "NVIDIA A100, 40960 MiB; "),
        ('echo "key ${BRIDGE_KEY-none}"', "key none"),
        ("exec sleep 60", ""),
    ],
    ids=["two", "broken", "many", "no key", "hangs"],
)
def test_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch, script, found):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("BRIDGE_KEY", "the-key")
    monkeypatch.setattr(module, "GPU_SECONDS", 0.5 if "sleep" in script else 20)
    told = gpus()
    assert told.startswith(found)
    assert len(told) <= module.MOST
    assert bool(told) is bool(found)
    assert Facts(period=0).due().get("gpu", "") == told
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert gpus() == ""
