"""What the kernel sends of a file by itself; whole downloads are tests/http/test_download.py."""

import os
import socket as plain
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
import gevent.os
import pytest
from gevent import socket

from api.http.gunicorn_response import TimedResponse
from api.http.send_file import AHEAD, PIECE, CannotSend, Part, connection, file_pieces, sent_pieces
from bridge.errors import NotFound, Unavailable
from bridge.file_pool import FilePool

DATA = os.urandom(3_000_000)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    with (tmp_path / "file").open("r+b", buffering=0) as opened:
        yield opened


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()  # type: ignore[attr-defined]
    yield ours, theirs
    ours.close()
    theirs.close()


def received(theirs: Any, count: int) -> bytes:
    got = b""
    while len(got) < count and (piece := theirs.recv(65536)):
        got += piece
    return got


@pytest.mark.parametrize(
    "served", [range(len(DATA)), range(5, 5 + PIECE), range(len(DATA) - 1, len(DATA)), range(7, 7)]
)
@pytest.mark.parametrize("by_kernel", [True, False])
def test_the_range_comes_behind_what_was_written_before(file, ends, served, by_kernel):
    ours, theirs = ends
    reader = gevent.spawn(received, theirs, 4 + len(served))
    ours.sendall(b"head")
    sent = 0
    for count, piece in file_pieces(ours if by_kernel else None, file, served, FilePool()):
        assert bool(piece) is (not by_kernel)
        ours.sendall(piece)
        sent += count
    assert sent == len(served)
    assert reader.get(timeout=30) == b"head" + DATA[served.start : served.stop]


def test_a_file_that_shrinks_ends_early_and_the_client_is_waited_for_only_so_long(file, ends, monkeypatch):
    ours, theirs = ends
    monkeypatch.setattr(TimedResponse, "seconds", 0.2)
    file.truncate(1000)
    assert sum(count for count, _ in file_pieces(ours, file, range(2000), FilePool())) == 1000
    assert received(theirs, 1000) == DATA[:1000]
    file.truncate(3_000_000)
    with pytest.raises(BrokenPipeError):
        list(file_pieces(ours, file, range(3_000_000), FilePool()))


def test_many_files_follow_one_another_and_one_is_open_at_a_time(file, ends):
    ours, theirs = ends
    opened: list[Any] = []

    def opens() -> Any:
        assert all(one.closed for one in opened)
        opened.append(os.fdopen(os.dup(file.fileno()), "rb", buffering=0))
        return opened[-1]

    served = [range(n, 50_000 + n) for n in range(2 * AHEAD)]
    wanted = b"".join(DATA[one.start : one.stop] for one in served)
    reader = gevent.spawn(received, theirs, len(wanted))
    parts = (Part(partial(opens), one) for one in served)
    assert sum(count for count, _ in sent_pieces(ours, parts, FilePool())) == len(wanted)
    assert reader.get(timeout=60) == wanted
    assert len(opened) == len(served)


def test_a_file_that_is_gone_ends_what_came_before_it(file, ends):
    ours, theirs = ends

    def gone() -> Any:
        raise NotFound("It is gone.")

    first = Part(lambda: os.fdopen(os.dup(file.fileno()), "rb", buffering=0), range(1000))
    with pytest.raises(NotFound):
        list(sent_pieces(ours, [first, Part(gone, range(1000)), first], FilePool()))
    ours.shutdown(plain.SHUT_WR)
    assert received(theirs, 3000) == DATA[:1000]


def test_what_is_no_file_is_left_to_be_read(ends):
    with pytest.raises(CannotSend):
        list(sent_pieces(ends[0], [Part(lambda: None, range(1000))], FilePool()))


def test_a_thread_that_comes_late_finds_nobody_elses_descriptors(file, ends, tmp_path):
    """Its request is over, and others have the numbers of its connection and its file."""
    ours, theirs = ends
    begun, goes_on = os.pipe(), os.pipe()
    files = FilePool(1, 0.3)
    gevent.spawn(_occupied, files, begun[1], goes_on[0])
    gevent.os.tp_read(begun[0], 1)
    with pytest.raises(Unavailable):
        list(file_pieces(ours, file, range(len(DATA)), files))
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    others = plain.socketpair()
    numbers = ours.fileno(), file.fileno()
    with (tmp_path / "secret").open("rb") as secret:
        ours.close()
        file.close()
        os.dup2(others[0].fileno(), numbers[0])
        os.dup2(secret.fileno(), numbers[1])
        os.write(goes_on[1], b"x")
        assert files(os.getpid) == os.getpid()  # behind what was late
        for number in numbers:
            os.close(number)
    others[0].close()
    assert others[1].recv(1) == b""
    assert b"secret" not in received(theirs, 100_000)
    others[1].close()
    for one in (*begun, *goes_on):
        os.close(one)


def _occupied(files: FilePool, begun: int, goes_on: int) -> None:
    with suppress(Unavailable):
        files(_hang, begun, goes_on)


def _hang(begun: int, goes_on: int) -> None:
    os.write(begun, b"x")
    os.read(goes_on, 1)


def test_only_a_connection_of_the_server_without_tls_is_sent_into():
    ours, theirs = plain.socketpair()
    assert connection({"gunicorn.socket": ours}) is ours
    assert connection({}) is None
    ours.close()
    theirs.close()
