"""An upload as an answer: sent by the kernel or read, and broken off where the store lacks a part of it."""

import errno
import os

import gevent
import pytest
from flask import Flask
from gevent import socket

from api.http.bytes_response import upload_response
from api.http.send_file import file_pieces
from bridge.blobs import append_to_upload
from bridge.file_pool import FilePool
from tests.support.arriving import FILE, announced
from tests.support.tus import objects


@pytest.fixture
def upload(core):
    return append_to_upload.append(core.runtime, announced(core), iter([FILE]))


@pytest.fixture(params=["read", "by the kernel", "no sendfile"])
def sent(request, monkeypatch):
    """Yield a function that returns what a client gets of an answer's body, in the way of the parameter."""
    ours, theirs = socket.socketpair()  # type: ignore[attr-defined]

    def unable(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "no sendfile":
        monkeypatch.setattr(os, "sendfile", unable)

    def all_of(body):
        got = bytearray()

        def client():
            while piece := theirs.recv(65536):
                got.extend(piece)

        reader = gevent.spawn(client)
        try:
            for part in body(None if request.param == "read" else ours):
                ours.sendall(part)
        finally:
            ours.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
            reader.join(60)
        return bytes(got)

    with ours, theirs:
        yield all_of


def answer(core, upload):
    def body(sock):
        with Flask("asked").test_request_context(environ_overrides={"gunicorn.socket": sock}):
            response = upload_response(core.runtime, upload, "x.bin")
            assert response.content_length == len(FILE)
            yield from response.response

    return body


def test_all_of_it_comes_in_each_way(core, upload, sent):
    assert sent(answer(core, upload)) == FILE


@pytest.mark.parametrize("gone", [True, False])
def test_what_the_store_has_lost_breaks_the_answer_off(core, upload, sent, gone):
    for kept in objects(core.runtime.settings):
        kept.unlink() if gone else os.truncate(kept, 1000)
    with pytest.raises(BrokenPipeError, match=r"does not answer|is missing in the store"):
        sent(answer(core, upload))


def test_a_local_file_comes_in_each_way(sent, tmp_path):
    (tmp_path / "file").write_bytes(FILE)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert (
            sent(lambda sock: (part for _, part in file_pieces(sock, file, range(9, 9000), FilePool()))) == FILE[9:9000]
        )
