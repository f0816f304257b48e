"""Claims and errors whose fields have the wrong form: none ends the worker, none forges a log line."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timezone

import pytest
from scripted_bridge import Say, claim, jobs

from bridge_worker.claim import BadClaim, read_claim
from bridge_worker.held import Held

DEEP = json.loads("[" * 400 + "]" * 400)
WRONG_FIELDS = [
    ("job_id", value) for value in (None, 7, [], {}, "", "a/b", "../x", "a\nb", "a\n", "x" * 65, "é", DEEP)
] + [
    ("content_type", value)
    for value in (None, 7, [], ["audio"], "", "audio\n", "audio\nERROR forged", "Audio", "x" * 51)
] + [
    ("lease_token", value) for value in (7, [], {}, "", "a b", "a\r\nX-Forged: 1", "a\n", "é", "x" * 501)
] + [
    ("task_options", value) for value in ("text", 7, [], [1], True)
] + [
    (name, value)
    for name in ("attempt", "retry_count", "source_size")
    for value in ("1", -1, 1.5, True, [], {}, 2**53, float("inf"))
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS, ids=lambda value: repr(value)[:20])
def test_a_field_of_the_wrong_form_makes_it_no_claim(name, value):
    with pytest.raises(BadClaim, match=name):
        read_claim(claim(**{name: value}))


@pytest.mark.parametrize("date", [None, "yesterday", "Thu, 01 Jan 99999999999 00:00:00 GMT"])
def test_a_deadline_counts_by_this_machines_clock_where_the_bridges_is_not_told(date):
    left = read_claim(claim(timeout_at="2099-01-01T00:00:00Z"), date).seconds_left
    assert left == pytest.approx(datetime(2099, 1, 1, tzinfo=timezone.utc).timestamp() - time.time(), abs=60)
    assert Held(read_claim(claim(timeout_at="soon"), date)).patience() == 3600


@pytest.mark.parametrize("value", [7, [], {}, "a\nb\x1b[31m", "x" * 5000, "\ud800", DEEP, None])
def test_a_field_that_only_describes_costs_no_job(value):
    read = read_claim(claim(source_name=value, source_media_type=value, timeout_at=value))
    for text in (read.source_name, read.source_media_type):
        assert text is None or (text.isprintable() and 0 < len(text) <= 255)
    assert read.timeout_at is None
    json.dumps(read.for_handler())


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\a\\b.txt", "/", "..\\x", "a/b/"])
def test_a_name_has_no_directory(name):
    assert not {"/", "\\"} & set(read_claim(claim(source_name=name)).source_name or "")


def test_wrong_claims_end_nothing_and_forge_no_log_line(bridge, run, caplog):
    caplog.set_level(logging.INFO)
    wrong = [
        claim(content_type=["audio"]),
        claim(job_id="x\n2099-01-01 ERROR forged"),
        claim(lease_token="x\r\nforged: 1"),
        claim(task_options=["forged"]),
        claim(source_name="x\n2099 forged", content_type="audio\nforged"),
        claim(job_id=DEEP),
    ]
    bridge.script("poll", *(jobs(one) for one in wrong), jobs(claim("good")))
    run("text", wait=0)
    assert bridge.next("result").job_id == "good"
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("bridge_worker")]
    assert sum("was not understood" in line for line in ours) == len(wrong)
    assert not [line for line in ours if "\n" in line or "\r" in line]


def test_an_error_forges_no_log_line(bridge, run, caplog):
    said = {"detail": "x\n2099 ERROR forged", "code": ["forged\n"]}
    bridge.script("poll", Say(503, said, {"X-Request-ID": "a b", "Retry-After": "0"}), jobs(claim()))
    bridge.script("result", Say(body={"status": "completed\n2099 ERROR forged"}))
    run("text")
    bridge.next("result"), bridge.next("poll"), bridge.next("poll"), bridge.next("poll")
    assert "forged" in caplog.text
    assert not [record for record in caplog.records if "\n" in record.getMessage()]
