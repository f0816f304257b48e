"""What is fetched from a server that takes its time or never ends."""

import time
import tracemalloc
from collections.abc import Sequence
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any

import pytest

from bridge.outgoing.addresses import network
from bridge.outgoing.connect import NotSent
from bridge.outgoing.destination import Allowed, BadAddress
from bridge.outgoing.fetch import PIECE, fetch
from tests.support.receiver import Answers, Received, answer, hang, receiver, trickle_body, trickle_head

LOCAL = Allowed.of(["http://127.0.0.1:*", "http://files.example.org:*"], [network("127.0.0.1")])


@pytest.mark.parametrize("hangs", [hang, trickle_head])
def test_a_head_that_does_not_come_is_waited_for_so_long(hangs: Answers) -> None:
    with receiver() as there:
        there.answers = hangs
        with pytest.raises(NotSent, match="No answer within 1 s"):
            fetch(LOCAL, there.url, {}, head_seconds=1)


def test_without_time_left_no_connection_is_made() -> None:
    with receiver() as there:
        with pytest.raises(NotSent, match="takes no connection"):
            fetch(LOCAL, there.url, {}, head_seconds=0)
        assert not there.got


def _silent_body(handler: BaseHTTPRequestHandler, _: Received) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun")
    Event().wait(20)


@pytest.mark.parametrize(("body", "bounds"), [(_silent_body, {"silence": 0.5}), (trickle_body, {"seconds": 1})])
def test_a_body_that_does_not_go_on_ends_early(body: Answers, bounds: dict[str, Any]) -> None:
    with receiver() as there:
        there.answers = body
        began, came = time.monotonic(), 0
        with closing(fetch(LOCAL, there.url, {}, **bounds)) as fetched, suppress(NotSent):
            for piece in fetched.pieces():
                came += len(piece)
        assert 0 < came < 1000
        assert time.monotonic() - began < 15


def _endless(handler: BaseHTTPRequestHandler, _: Received) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 65536)


def test_of_a_body_without_end_one_piece_is_held_and_closing_ends_it() -> None:
    with receiver() as there:
        there.answers = _endless
        fetched = fetch(LOCAL, there.url, {})
        tracemalloc.start()
        try:
            came = 0
            for piece in fetched.pieces():
                assert len(piece) <= PIECE
                came += len(piece)
                if came > 50_000_000:
                    break
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
            fetched.close()


def test_a_name_is_looked_up_once_and_no_redirect_is_followed() -> None:
    asked = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with receiver() as there, receiver(address="127.0.0.2") as canary:
        there.answers = answer(302, Location=canary.url)
        url = f"http://files.example.org:{there.port}/"
        fetched = fetch(LOCAL, url, {}, ask=rebinding)
        assert (fetched.status, asked) == (302, ["files.example.org"])
        fetched.close()
        with pytest.raises(BadAddress, match="may not be reached"):
            fetch(LOCAL, url, {}, ask=rebinding)
        assert not canary.got
        assert len(there.got) == 1
