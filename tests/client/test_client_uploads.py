"""Files on their way to the bridge, over a network that cuts them off."""

import hashlib
import json
import os

import anyio
import pytest

from jobbridge_client import (
    AsyncClient,
    BadAnswer,
    BadFile,
    Denied,
    Invalid,
    NotFound,
    Refused,
    Unreachable,
    Upload,
)  # fmt: skip
from tests.support.fault_proxy import FaultProxy
from tests.support.scripted_answers import answer, asked
from tests.support.tus import offset

MIB = 2**20


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(6 * MIB))
    return path


def test_a_file_comes_whole_however_often_the_connection_is_cut(either, client, file):
    with FaultProxy.before(client.url) as proxy:
        proxy.cut_after(2 * MIB, "up", times=2)
        sent = either("upload", file, url=proxy.url(client.url))
        again = proxy.stats.bytes_up - file.stat().st_size
    assert sent.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    # All of it, heads included, where the bridge is asked before it has stored any.
    assert again < 4 * MIB + MIB // 16, "a cut costs no more than what it cut off"


def test_an_upload_goes_on_in_the_next_process(either, client, file):
    seen: list[Upload] = []
    with FaultProxy.before(client.url) as proxy:
        proxy.cut_after(4 * MIB, "up", times=1000)
        with pytest.raises(Unreachable) as broken:
            either("upload", file, url=proxy.url(client.url), options={"patience": 0.0}, progress=seen.append)
    upload = broken.value.upload
    assert upload is not None
    assert upload.upload_id == seen[0].upload_id
    begun = offset(client, f"/api/v1/uploads/{upload.upload_id}")
    states: list[Upload] = []
    whole = either("upload", file, resume=upload.upload_id, progress=states.append)
    assert (whole.upload_id, whole.received) == (upload.upload_id, 6 * MIB)
    assert states[0].received >= begun
    assert either("upload", file, resume=upload.upload_id).sha256 == whole.sha256


def test_what_cannot_be_resumed_is_said_or_begun_anew(sdk, client, file, tmp_path):
    sent = sdk.upload(file)
    other = tmp_path / "other"
    other.write_bytes(b"shorter")
    with pytest.raises(BadFile, match="another file"):
        sdk.upload(other, resume=sent.upload_id)
    assert sdk.upload(other, resume="00000000-0000-7000-8000-000000000000").length == 7


def test_a_file_that_changes_while_it_is_sent_is_not_taken_for_the_old_one(sdk, file):
    def change(state):
        if state.received == 0:
            with file.open("r+b") as out:
                out.write(b"changed")

    def shorten(state):
        if state.received == MIB:
            os.truncate(file, 2 * MIB)

    def flip(state):
        if state.received == state.length:
            with file.open("r+b") as out:
                out.write(b"later")

    assert sdk.upload(file, progress=change).sha256  # before any byte was read: that is the file
    with pytest.raises(BadFile, match="changed while it was sent"):
        sdk.upload(file, progress=flip)
    with pytest.raises(BadFile, match=r"became shorter|bytes now and had"):
        sdk.upload(file, progress=shorten)
    with pytest.raises(BadFile, match=r"has 3 bytes now and had \d+"):
        sdk.upload(file, progress=lambda _: os.truncate(file, 3))


def test_an_empty_file_is_a_file(either, tmp_path):
    (tmp_path / "empty").touch()
    sent = either("upload", tmp_path / "empty", media_type="text/plain")
    assert (sent.length, sent.sha256) == (0, hashlib.sha256().hexdigest())


def test_a_file_that_cannot_be_sent_is_named(either, client, bridge, file, tmp_path):
    with pytest.raises(BadFile, match="No such file"):
        either("upload", tmp_path / "nosuch")
    with pytest.raises(BadFile, match="directory"):
        either("upload", tmp_path)
    with pytest.raises(BadFile, match="the file: Input/output error"):
        either("upload", "/proc/self/mem")
    with pytest.raises(Denied):
        either("upload", file, key=bridge.key(client.tenant, ("read",)))


STATE = {"upload_id": "u", "length": 0, "received": 0}
ANNOUNCED = answer("201 Created", json.dumps(STATE).encode())


@pytest.mark.parametrize(
    ("answers", "kind", "reason"),
    [
        ([answer("413 x")], Refused, "413"),
        ([answer("500 x"), answer("404 x")], NotFound, "404"),
        ([answer("204 x", b""), answer("200 OK", json.dumps(STATE).encode())], BadAnswer, "has no digest"),
    ],
    ids=["piece refused", "gone meanwhile", "no digest"],
)
def test_an_upload_that_fails_is_told_with_how_far_it_came(tmp_path, answers, kind, reason):
    (tmp_path / "empty").touch()
    given = asked(ANNOUNCED, *answers, patience=0)
    with given as (client, server), pytest.raises(kind, match=reason) as failed:
        client.upload(tmp_path / "empty")
    assert failed.value.upload == Upload("u", 0, 0)
    assert len(server.heads) == 1 + len(answers)


def test_a_job_that_is_refused_names_the_upload_that_was_made_for_it(either, tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    with pytest.raises(Invalid) as refused:
        either("submit", tmp_path / "file", "No Type")
    assert refused.value.upload is not None
    assert (refused.value.upload.received, set(refused.value.fields)) == (5, {"content_type"})


def test_an_upload_that_is_cancelled_leaves_the_client_usable(client, file):
    async def run(proxy):
        sent = []

        async def send():
            sent.append(await sdk.upload(file))

        async with AsyncClient(proxy.url(client.url), client.key) as sdk:
            proxy.black_hole()
            with anyio.move_on_after(0.5) as scope:
                await send()
            proxy.heal()
            async with anyio.create_task_group() as at_once:
                for _ in range(3):
                    at_once.start_soon(send)
        return scope.cancelled_caught, sent

    with FaultProxy.before(client.url) as proxy:
        cancelled, sent = anyio.run(run, proxy)
    assert cancelled
    assert {one.sha256 for one in sent} == {hashlib.sha256(file.read_bytes()).hexdigest()}
    assert len({one.upload_id for one in sent}) == 3
