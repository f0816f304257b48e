"""Texts and artifacts into files: whole, or not there."""

import base64
import hashlib
import json
import os

import pytest

from jobbridge_client import BadAnswer, BadFile, BadSetting, NotFound, Refused, Unreachable
from tests.support.scripted_answers import answer, asked, scripted

MIB = 2**20
TEXT = b"0123456789" * 1000
DIGEST = "Repr-Digest: sha-256=:" + base64.b64encode(hashlib.sha256(TEXT).digest()).decode() + ":"


def text(status, body, *headers):
    return answer(status, body, *headers, kind="text/plain; charset=utf-8")


BROKEN = text("200 OK", TEXT, DIGEST, 'ETag: "1"')[:-4000]


def rest(begin, *headers):
    return text("206 Partial Content", TEXT[begin:], f"Content-Range: bytes {begin}-9999/10000", *headers)


@pytest.mark.parametrize("again", [rest(6000, DIGEST, 'ETag: "1"'), text("200 OK", TEXT, 'ETag: "2"')])
def test_what_broke_off_goes_on_or_begins_anew(tmp_path, again):
    with asked(BROKEN, again) as (client, server):
        assert client.save_result("1", tmp_path / "text").read_bytes() == TEXT
    assert "accept: text/plain" in server.heads[0].lower()
    assert "range: bytes=6000-\r\n" in server.heads[1].lower()
    assert 'if-range: "1"\r\n' in server.heads[1].lower()


@pytest.mark.parametrize(
    "answers",
    [[BROKEN, answer("416 Range Not Satisfiable", b"{}")], [BROKEN, rest(5000)], [text("200 OK", TEXT[1:], DIGEST)],
     [BROKEN.replace(b'"1"', b'W/"1"')], [answer("520 Unknown")]],
    ids=["shorter", "another part", "other bytes", "a weak ETag", "another 5xx"],
)  # fmt: skip
def test_what_cannot_go_on_begins_anew(tmp_path, answers):
    with asked(*answers, text("200 OK", TEXT, DIGEST)) as (client, server):
        assert client.save_result("1", tmp_path / "text").read_bytes() == TEXT
    assert "range:" not in server.heads[-1].lower()
    assert len(server.heads) == len(answers) + 1


def test_bytes_that_are_others_each_time_end_with_the_patience(tmp_path):
    wrong = [text("200 OK", TEXT[1:] + str(n).encode(), DIGEST) for n in range(9)]
    with asked(*wrong, patience=1) as (client, server), pytest.raises(BadAnswer, match="not those of their digest"):
        client.save_result("1", tmp_path / "text")
    assert 2 <= len(server.heads) < 9


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([text("200 OK", TEXT[1:], DIGEST)], BadAnswer),
        ([BROKEN, rest(5000)], BadAnswer),
        ([answer("200 OK", b"{}")], BadAnswer),
        ([BROKEN, answer("404 Not Found", b"{}")], NotFound),
        ([text("200 OK", TEXT, "Content-Encoding: gzip")], BadAnswer),
    ],
)
def test_what_does_not_come_whole_is_not_there(tmp_path, answers, kind):
    (tmp_path / "text").write_text("old")
    with asked(*answers) as (client, _), pytest.raises(kind):
        client.save_result("1", tmp_path / "text")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    assert (tmp_path / "text").read_text() == "old"


def sent_to(store, *headers):
    return text("307 Temporary Redirect", b"", f"Location: {store.url}/bucket/a%2Fb?X-Amz-Signature=x", *headers)


def test_a_store_is_asked_without_key_and_for_the_rest_of_the_same_file(tmp_path, either):
    whole = answer("200 OK", TEXT, 'ETag: "of the store"', kind="binary/octet-stream")
    denied = answer("403 Forbidden", b"<Error/>", kind="application/xml")
    with scripted(whole[:-4000], denied, rest(6000)) as store, scripted(sent_to(store, DIGEST, 'ETag: "1"')) as server:
        assert either("save_result", "1", tmp_path / "text", url=server.url).read_bytes() == TEXT
    assert store.heads[0].startswith("GET /bucket/a%2Fb?X-Amz-Signature=x HTTP/1.1\r\n")
    assert ["range: bytes=6000-" in head.lower() for head in store.heads] == [False, True, True]
    assert not any(word in "".join(store.heads).lower() for word in ("authorization", "bearer", "if-range"))
    assert all("authorization: bearer" in head.lower() for head in server.heads)


def test_another_file_in_the_store_is_begun_anew(tmp_path):
    with (
        scripted(BROKEN, answer("200 OK", TEXT)) as store,
        asked(sent_to(store, 'ETag: "1"'), sent_to(store, 'ETag: "2"')) as (client, _),
    ):
        assert client.save_result("1", tmp_path / "text").read_bytes() == TEXT
    assert "range:" not in store.heads[1].lower()


def test_bytes_of_a_store_that_are_others_are_not_there(tmp_path):
    with scripted(answer("200 OK", TEXT[1:])) as store, asked(sent_to(store, DIGEST)) as (client, _):
        with pytest.raises(BadAnswer, match="digest"):
            client.save_result("1", tmp_path / "text")
        assert list(tmp_path.iterdir()) == []


def test_a_redirect_that_names_no_file_is_not_followed(tmp_path):
    """Which addresses these are: tests/outgoing/test_workers_addresses.py."""
    told = answer("307 x", b"", "Location: //x/y", kind="text/plain")
    with asked(told) as (client, server), pytest.raises(BadAnswer, match="redirects"):
        client.save_result("1", tmp_path / "text")
    assert len(server.heads) == 1


def test_a_download_that_gains_nothing_ends_with_the_patience(tmp_path):
    with asked(BROKEN, b"", patience=1) as (client, server), pytest.raises(Unreachable):
        client.save_result("1", tmp_path / "text")
    assert len(server.heads) >= 2
    with asked(answer("503 Service Unavailable"), patience=0) as (client, _), pytest.raises(Refused, match="503"):
        client.save_result("1", tmp_path / "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", ".", "", "a\0b"])
def test_an_artifact_cannot_name_a_place_outside_the_directory(tmp_path, name):
    listed = {"items": [{"name": name, "size": 1, "media_type": "text/plain", "sha256": "0" * 64}]}
    with asked(answer("200 OK", json.dumps(listed).encode())) as (client, server):
        with pytest.raises((BadAnswer, BadSetting)):
            client.save_artifacts("1", tmp_path / "files")
        with pytest.raises(BadFile):
            client.save_result("1", tmp_path / "nosuch" / "text")
    assert len(server.heads) == 1
    assert list((tmp_path / "files").iterdir()) == []


def test_a_link_stays_one_and_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "text")
    os.mkfifo(tmp_path / "pipe")
    with asked(text("200 OK", TEXT)) as (client, _):
        client.save_result("1", tmp_path / "link")
        for place in (tmp_path, tmp_path / "pipe", "/dev/null"):
            with pytest.raises(BadFile, match="not a regular file"):
                client.save_result("1", place)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "text").read_bytes() == TEXT
    assert (tmp_path / "pipe").is_fifo()


def test_a_list_without_end_is_not_read_for_ever():
    item = {"name": "a", "size": 1, "media_type": "text/plain", "sha256": "0" * 64}
    listed = answer("200 OK", json.dumps({"items": [item] * 500, "next_cursor": "more"}).encode())
    with asked(listed) as (client, server), pytest.raises(BadAnswer, match="more than 1000"):
        client.artifacts("1")
    assert len(server.heads) == 3
