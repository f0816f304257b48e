"""A handler's process by itself: what it says out of turn, how it ends, and what its handler may raise and return."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from pathlib import Path

import pytest
from converting_one import convert, ready
from scripted_bridge import claim, jobs
from waiting import until

from bridge_worker import Result, converting
from bridge_worker.attempt import Attempt, _stamp
from bridge_worker.claim import read_claim
from bridge_worker.held import Held
from bridge_worker.job import Job
from bridge_worker.process import NotStarted, Setup
from bridge_worker.results import Results
from bridge_worker.slots import Slots


@pytest.fixture
def process(tmp_path):
    """Return a process that is ready."""
    with ready(Setup({"audio": "conversions:noisy"}, descriptors=None), tmp_path / "process") as started:
        yield started


def test_what_is_no_message_is_ignored_and_so_is_a_cancel_without_a_job(process, held, caplog):
    caplog.set_level(logging.INFO, "bridge_worker")
    process._send(cancel="too late")
    process.exceed("a limit, after the job before")
    assert convert(process, b"x", held)[0].kind == "result"
    assert process.usable
    until(lambda: process._lines >= 150, "all that it said to be read")
    assert 0 < sum(record.getMessage().endswith("handler: line") for record in caplog.records) <= 100


def test_a_process_that_died_before_its_job_came_is_a_crash(process, held):
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.wait()
    until(lambda: not process._messages.empty(), "its end to be noticed")
    outcome, _ = convert(process, b"x", held)
    assert outcome.kind == "crash"
    assert outcome.text.startswith("the conversion's process was killed by SIGKILL")


def test_handlers_that_are_not_ready_in_time_are_given_up(tmp_path):
    (tmp_path / "slow").touch()
    setup = Setup({"audio": "conversions:Model"}, {"dir": str(tmp_path)}, start_seconds=0.0)
    with pytest.raises(NotStarted, match="not ready after"), ready(setup, tmp_path / "process"):
        pass


@pytest.mark.parametrize("wanted", [True, False])
def test_a_job_whose_process_does_not_start_goes_back_while_it_is_wanted(bridge, client, held, tmp_path, wanted):
    class Broken:
        def ready(self):
            if not wanted:
                held.abandon("lease_lost")
            raise NotStarted("no GPU")

    attempt = Attempt(client, Results(client), held, Broken(), tmp_path)
    attempt.run(60)
    assert attempt.outcome == "machine"
    assert bridge.calls_left("release") == wanted
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_its_handler_removed_is_not_the_same():
    assert _stamp(Path("/nowhere")) is None


def raising(error):
    def handler(job, path):
        raise error

    return handler


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        (raising(MemoryError("9 GB")), "limit", "out of memory: MemoryError: 9 GB"),
        (raising(OSError(errno.EMFILE, "many")), "limit", "too many open descriptors"),
        (raising(OSError(errno.ENOSPC, "full")), "machine", "no room on the disk"),
        (raising(asyncio.CancelledError()), "unclear", "CancelledError"),
        (lambda job, path: Result("text", artifacts=["a"]), "worker", "must be a mapping"),
        (lambda job, path: Result(7), "worker", "content is not text"),
    ],
)
def test_each_outcome_has_its_kind(tmp_path, handler, kind, text):
    (tmp_path / "source").touch()
    outcome = converting.convert(handler, Job(claim()), tmp_path)
    assert outcome[0] == kind
    assert text in outcome[1]


def test_a_set_up_may_be_any_kind_of_function_too():
    async def coroutine():
        return 7

    def generator():
        yield 0.5
        return 7

    assert [converting.finish(one) for one in (coroutine(), coroutine(), generator(), 7)] == [7] * 4


@pytest.fixture
def slots(client, tmp_path):
    made = Slots(client, Setup({"audio": "conversions:text"}), tmp_path, 1)
    yield made
    made.close()


def test_a_slot_takes_one_job(slots):
    assert slots.give(Held(read_claim(claim("a"))))
    assert not slots.give(Held(read_claim(claim("b"))))


def test_what_a_slot_has_left_running_ends_with_the_slots(slots):
    process = slots.all[0].ready()
    assert process.alive()
    slots.close()
    assert process.process.poll() is not None


def test_a_slot_that_cannot_start_a_process_says_so_and_ends(slots, tmp_path, caplog):
    (tmp_path / "slot-0").rmdir()
    (tmp_path / "slot-0").touch()
    slots.start_all()
    until(lambda: "could not be started" in caplog.text, "the slot to say so")
    slots.close()
    assert not slots.all[0].thread.is_alive()


def test_a_slot_outlives_what_breaks_in_the_worker(bridge, run, caplog):
    bridge.script("poll", jobs(claim("a")), jobs(claim("b")))
    running = run("text")
    running.slots._on_outcome = lambda outcome, seconds: 1 / 0
    assert {bridge.next("result").job_id for _ in range(2)} == {"a", "b"}
    assert running.slots.wait(running.slots.free, 60)
    assert "the worker broke" in caplog.text
