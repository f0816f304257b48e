"""Source files that are too large, encoded, of a wrong length, or for which there is no room."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest
from bounds import MIB, bomb
from scripted_bridge import Say, claim, jobs

from bridge_worker.claim import read_claim
from bridge_worker.download import Download, NotHere, Refused
from bridge_worker.held import Held


@pytest.fixture
def fetch(client, tmp_path):
    def download(**limits):
        return Download(client, Held(read_claim(claim(source_name="speech.wav"))), tmp_path, **limits).fetch()

    return download


def stored(tmp_path) -> int:
    return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", [{"data": b"x" * MIB}, {"stream": itertools.repeat(b"x" * 65536)}], ids=["told", "not"])
def test_a_file_larger_than_the_limit_is_refused_once(bridge, fetch, tmp_path, how):
    bridge.script("download", Say(**how))
    with pytest.raises(Refused, match=r"speech\.wav: the source file has .*at most 500000 \(--max-download\)"):
        fetch(most=500_000)
    assert stored(tmp_path) <= 500_000 + 65536
    bridge.next("download")
    assert bridge.calls_left("download") == 0


def test_a_file_as_large_as_the_limit_is_taken(bridge, fetch):
    bridge.script("download", Say(data=b"x" * 500_000))
    assert fetch(most=500_000).stat().st_size == 500_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x-unknown"])
def test_an_encoded_file_is_not_stored(bridge, fetch, tmp_path, encoding):
    bridge.script("download", Say(data=bomb("gzip", MIB), headers={"Content-Encoding": encoding}))
    with pytest.raises(NotHere, match=f"Content-Encoding {encoding}"):
        fetch()
    assert stored(tmp_path) == 0
    assert bridge.next("download").headers["accept-encoding"] == "identity"


def test_a_file_for_which_there_is_no_room_is_not_begun(bridge, fetch, tmp_path):
    size = shutil.disk_usage(tmp_path).free + MIB
    bridge.script("download", Say(data=b"x", headers={"Content-Length": str(size)}, cut=1))
    with pytest.raises(NotHere, match=r"bytes free.*--work-dir"):
        fetch(most=2 * size)
    assert stored(tmp_path) == 0


def test_a_file_of_unknown_size_stops_before_the_disk_is_full(bridge, fetch, tmp_path):
    bridge.script("download", Say(stream=itertools.repeat(os.urandom(65536))))
    with pytest.raises(NotHere, match="bytes free"):
        fetch(reserve=shutil.disk_usage(tmp_path).free - 4 * MIB, look=MIB)
    assert stored(tmp_path) < 512 * MIB


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000, "\u00b2", "1e3", "0x10", ""])
def test_a_length_that_is_no_number_breaks_nothing(bridge, fetch, length):
    answer = Say(data=b"source", headers={"Content-Length": length, "Connection": "close"}, cut=6)
    bridge.script("download", answer)
    assert fetch().read_bytes() == b"source"


@pytest.mark.parametrize("part", ["bytes 5-10/11", "bytes x-10/11", "bytes " + "9" * 5000 + "-/1"])
def test_a_part_that_was_not_asked_for_is_not_joined(bridge, fetch, part):
    bridge.script(
        "download",
        Say(data=b"source file", cut=3, headers={"ETag": '"1"', "Content-Length": "11"}),
        Say(206, data=b"rce file", headers={"Content-Range": part}),
        Say(data=b"source file"),
    )
    assert fetch().read_bytes() == b"source file"


def test_what_this_machine_cannot_take_goes_back_and_spends_no_retry(bridge, run):
    bridge.script("poll", jobs(claim()))
    bridge.script("download", Say(data=bomb("gzip", MIB), headers={"Content-Encoding": "gzip"}))
    running = run("text")
    bridge.next("release")
    running.stop()
    assert running.outcomes == ["machine"]
    assert bridge.calls_left("result") == 0


def test_a_file_that_is_too_large_fails_its_job_for_good(bridge, run):
    bridge.script("poll", jobs(claim()))
    run("text", most=3)
    body = bridge.next("result").body
    assert (body["success"], body["retryable"]) == (False, False)
    assert "6 bytes; this worker takes at most 3" in body["error_message"]
