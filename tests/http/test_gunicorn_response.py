"""Answers on the wire: the head goes with the first of the body, and is sent where there is no body."""

import http.client
import socket
from types import SimpleNamespace

import gevent.socket
import pytest

from api.http.fixed_headers import SAFE
from api.http.gunicorn_response import PIECE, TimedResponse


class Sending:
    """A socket that counts what is sent."""

    def __init__(self, connection):
        self._connection, self.packets = connection, []

    def send(self, data, *how):
        self.packets.append(bytes(data))
        return self._connection.send(data, *how)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def _exchange(method, status, headers, pieces, version=(1, 1)):
    """Return what a client reads, and the packets in which it was sent."""
    here, there = gevent.socket.socketpair()  # type: ignore[attr-defined]
    with here, there:
        sending = Sending(here)
        request = SimpleNamespace(method=method, version=version, should_close=lambda: False, headers=[])
        response = TimedResponse(request, sending, SimpleNamespace(is_ssl=False))
        response.start_response(status, headers)
        for piece in pieces:
            response.write(piece)
        response.close()
        here.shutdown(socket.SHUT_WR)
        read = http.client.HTTPResponse(there, method=method)
        read.begin()
        return read, read.read(), sending.packets


def test_a_short_answer_is_one_packet_with_every_header_once():
    headers = [("Content-Type", "application/json"), ("Content-Length", "2"), ("X-Own", "é"), *SAFE.items()]
    read, body, packets = _exchange("GET", "200 OK", headers, [b"{}"])
    assert (read.status, body, len(packets)) == (200, b"{}", 1)
    lines = packets[0].partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    names = [line.partition(":")[0] for line in lines]
    assert sorted(names) == sorted(["Date", "Connection", *(name for name, _ in headers)])
    assert {name: read.getheader(name) for name, _ in headers} == dict(headers)
    assert read.getheader("Connection") == "keep-alive"


@pytest.mark.parametrize(
    ("method", "status", "headers", "pieces", "body"),
    [
        ("HEAD", "200 OK", [("Content-Length", "5")], [b""], b""),
        ("GET", "304 Not Modified", [], [], b""),
        ("DELETE", "204 No Content", [], [b""], b""),
        ("GET", "200 OK", [("Content-Length", "0")], [b""], b""),
        ("GET", "200 OK", [("Content-Length", "0")], [], b""),
        ("GET", "200 OK", [("Content-Length", "6")], [b"", b"abc", b"def", b"too much"], b"abcdef"),
        ("GET", "200 OK", [], [b"", b"abc", b"", b"def"], b"abcdef"),  # in chunks
        ("GET", "200 OK", [], [], b""),
    ],
)
def test_what_a_client_reads(method, status, headers, pieces, body):
    read, got, _ = _exchange(method, status, headers, pieces)
    assert (read.status, got) == (int(status[:3]), body)


@pytest.mark.parametrize("headers", [[("Content-Length", str(3 * PIECE))], []])
def test_a_long_body_goes_in_pieces(headers):
    here = b"x" * 3 * PIECE
    _, got, packets = _exchange("GET", "200 OK", headers, [here[:10], here[10:]])
    assert got == here
    assert max(map(len, packets)) <= PIECE + 100
