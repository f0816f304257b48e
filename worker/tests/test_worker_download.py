"""Downloads: resumed where they broke, begun again where the file is another."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import pytest
from scripted_bridge import Say, claim, digest, jobs, problem, rest_of

from bridge_worker import download
from bridge_worker.answers import CallFailed
from bridge_worker.claim import read_claim
from bridge_worker.download import CheckpointDownload, Download, Refused
from bridge_worker.held import Held

DATA = os.urandom(300_000)
OTHER = os.urandom(250_000)
SHA256 = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def fetch(client, held, tmp_path):
    return Download(client, held, tmp_path).fetch


def cut(etag):
    return Say(data=DATA, cut=200_000, headers={"ETag": etag})


def test_broken_download_is_resumed(bridge, fetch):
    bridge.script("download", cut('"one"'), rest_of(DATA))
    assert fetch().read_bytes() == DATA
    assert "range" not in bridge.next("download").headers
    asked = bridge.next("download").headers
    assert asked["if-range"] == '"one"'
    assert 0 < int(asked["range"][len("bytes=") : -1]) <= 200_000


@pytest.mark.parametrize(
    ("answers", "content", "resumes"),
    [
        ([cut('"one"'), Say(data=OTHER, headers={"ETag": '"two"'})], OTHER, [False, True]),
        ([cut('W/"one"'), Say(data=DATA)], DATA, [False, False]),
        ([cut('"one"'), Say(416), Say(data=OTHER)], OTHER, [False, True, False]),
        ([Say(stream=[DATA[:1000]], headers={"Content-Length": "300000"}), Say(data=DATA)], DATA, [False, False]),
        ([Say(503), Say(data=DATA)], DATA, [False, False]),
    ],
    ids=["changed", "a weak ETag", "beyond its end", "fewer bytes than were told", "503"],
)
def test_a_file_is_asked_for_until_it_is_whole_and_begun_again_where_it_cannot_be_resumed(
    bridge, fetch, answers, content, resumes
):
    bridge.script("download", *answers)
    assert fetch().read_bytes() == content
    assert ["range" in bridge.next("download").headers for _ in answers] == resumes


def test_bytes_that_have_another_digest_are_fetched_again(bridge, fetch):
    wrong, right = ({"ETag": '"one"', "Repr-Digest": digest(data)} for data in (OTHER, DATA))
    bridge.script("download", Say(data=DATA, headers=wrong), Say(data=DATA, cut=200_000, headers=right), rest_of(DATA))
    assert fetch().read_bytes() == DATA
    assert ["range" in bridge.next("download").headers for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("in_claim", [True, False])
def test_another_file_than_was_declared_is_fetched_twice_and_then_refused(bridge, client, tmp_path, in_claim):
    """By the digest in the claim, as a proxy may remove the one of the answer; else by that."""
    told, fields = ({}, {"source_sha256": SHA256}) if in_claim else ({"Repr-Digest": digest(OTHER)}, {})
    bridge.script("download", *[Say(data=data, headers=told) for data in (DATA, DATA[::-1], DATA, DATA)])
    words = "not the one that was declared" if in_claim else "not the one whose digest came with it"
    with pytest.raises(Refused, match=words) as refused:
        Download(client, Held(read_claim(claim(**fields))), tmp_path).fetch()
    for data in (DATA, OTHER):
        assert hashlib.sha256(data).hexdigest() in str(refused.value)
    for _ in range(4):
        bridge.next("download")
    assert bridge.calls_left("download") == 0


def test_another_checkpoint_than_was_uploaded_is_refused_by_its_own_name(bridge, client, tmp_path):
    bridge.always("checkpoint", Say(data=DATA))
    told = claim(checkpoint_upload={"sha256": SHA256}, source_name="a.pdf")
    with pytest.raises(Refused, match=r"^checkpoint: the checkpoint is not the one"):
        CheckpointDownload(client, Held(read_claim(told)), tmp_path).fetch()


@pytest.mark.parametrize("wrong", [7, "x" * 64, "0" * 65, None])
def test_a_digest_of_the_wrong_form_costs_no_job(wrong):
    assert read_claim(claim(source_sha256=wrong)).source_sha256 is None


@pytest.mark.parametrize(
    ("answer", "share"),
    [(problem(503, "unavailable", Retry_After="3600"), 0.25), (Say(stream=itertools.repeat(b"x" * 65536)), 0.0)],
    ids=["no answer for longer", "no end"],
)
def test_a_checkpoint_is_waited_for_no_longer_than_the_attempt_can_spare(
    bridge, client, held, tmp_path, monkeypatch, answer, share
):
    monkeypatch.setattr(download, "CHECKPOINT_SHARE", share)
    bridge.always("checkpoint", answer)
    with pytest.raises(Refused, match="came in time"):
        CheckpointDownload(client, held, tmp_path).fetch()
    bridge.next("checkpoint")
    assert bridge.calls_left("checkpoint") == 0


def test_a_refused_source_is_asked_for_once(bridge, fetch):
    bridge.always("download", problem(405, "method_not_allowed"))
    with pytest.raises(CallFailed, match="405"):
        fetch()
    bridge.next("download")
    assert bridge.calls_left("download") == 0


def test_a_store_is_asked_without_key_and_token_and_for_the_rest(bridge, elsewhere, fetch, caplog):
    told = {"ETag": '"one"', "Repr-Digest": digest(DATA), "Content-Disposition": 'attachment; filename="a.pdf"'}
    there = Say(307, headers={**told, "Location": f"{elsewhere.url}/files/download?X-Amz-Signature=1"})
    bridge.always("download", there)
    elsewhere.script(
        "download", Say(data=DATA, cut=200_000, headers={"ETag": '"of the store"'}), Say(403), rest_of(DATA)
    )
    path = fetch()
    assert (path.read_bytes(), path.suffix) == (DATA, ".pdf")
    asked = [elsewhere.next("download").headers for _ in range(3)]
    assert ["range" in one for one in asked] == [False, True, True]
    for one in asked:
        assert not {"authorization", "x-lease-token", "if-range"} & one.keys()
    assert bridge.next("download").headers["x-lease-token"]
    assert bridge.next("download").headers["if-range"] == '"one"'
    assert "source download: the bridge's store answers 403; again in" in caplog.text


def test_another_file_in_the_store_is_begun_anew(bridge, elsewhere, fetch):
    for etag in ('"one"', '"two"'):
        bridge.script("download", Say(307, headers={"ETag": etag, "Location": f"{elsewhere.url}/download"}))
    elsewhere.script("download", Say(data=DATA, cut=200_000), Say(data=OTHER))
    assert fetch().read_bytes() == OTHER
    assert "range" not in [elsewhere.next("download") for _ in range(2)][1].headers


def test_a_redirect_that_names_no_file_ends_the_download(bridge, fetch):
    bridge.script("download", Say(307, headers={"Location": "//x/y"}))
    with pytest.raises(CallFailed, match="no address"):
        fetch()
    bridge.next("download")
    assert bridge.calls_left("download") == 0


@pytest.mark.parametrize(
    ("headers", "suffix"),
    [
        ({"Content-Disposition": 'attachment; filename="A b.PDF"'}, ".pdf"),
        ({"Content-Disposition": "attachment; filename*=UTF-8''..%2F..%2Fx.docx"}, ".docx"),
        ({"Content-Type": "text/html; charset=utf-8"}, ".html"),
        ({"Content-Type": "application/octet-stream"}, ""),
        ({"Content-Disposition": 'attachment; filename="x.a b/c"'}, ""),
    ],
)
def test_suffix_comes_from_the_answer(bridge, fetch, tmp_path, headers, suffix):
    bridge.script("download", Say(data=b"x", headers={"Content-Type": "application/octet-stream"} | headers))
    assert fetch() == tmp_path / f"source{suffix}"


def test_temporary_file_is_gone_afterwards(bridge, run, tmp_path):
    bridge.script("poll", jobs(claim()))
    running = run("show")
    path = Path(bridge.next("result").body["content"])
    running.stop()
    assert tmp_path in path.parents
    assert not path.parent.exists()
    assert not list(tmp_path.rglob("*source*"))
