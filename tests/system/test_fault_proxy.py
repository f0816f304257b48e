"""The fault proxy itself, before a server that answers each line with the same line, in capitals."""

import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until


class Shouting(socketserver.StreamRequestHandler):
    server: "Server"

    def handle(self) -> None:
        for line in self.rfile:
            self.server.heard.append(line)
            self.wfile.write(line.upper())


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shouting)
        self.heard: list[bytes] = []

    def handle_error(self, request, client_address) -> None:
        """Print nothing about a connection that a fault ended."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(server.server_address) as running:
        yield running


class Line:
    """A client's connection; `ask` is None where the connection ended without a whole answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.file = self.socket.makefile("rb")

    def say(self, line: bytes) -> None:
        self.socket.sendall(line)

    def ask(self, line: bytes) -> bytes | None:
        try:
            self.say(line)
            answer = self.file.readline()
        except ConnectionError:
            return None
        return answer if answer.endswith(b"\n") else None


@pytest.fixture
def connect(proxy) -> Iterator[Callable[[], Line]]:
    opened: list[Line] = []

    def make() -> Line:
        opened.append(Line(proxy.address))
        return opened[-1]

    yield make
    for line in opened:
        line.file.close()
        line.socket.close()


def test_without_a_fault_it_is_as_if_it_were_not_there(proxy, connect):
    lines = [connect() for _ in range(3)]
    assert [line.ask(b"hello\n") for line in lines] == [b"HELLO\n"] * 3
    big = b"x" * 3_000_000 + b"\n"
    sender = threading.Thread(target=lines[0].say, args=(big,))
    sender.start()
    assert lines[0].file.readline() == big.upper()
    sender.join()
    stats = proxy.stats
    assert (stats.connections, stats.open, stats.faults) == (3, 3, 0)
    assert stats.bytes_up == stats.bytes_down == 18 + len(big)


def test_a_request_that_is_cut_before_the_server_has_seen_it(proxy, server, connect):
    fault = proxy.cut_on(b"COMMIT")
    first, second = connect(), connect()
    assert first.ask(b"begin\n") == b"BEGIN\n"
    assert first.ask(b"COMMIT\n") is None
    assert fault.happened.wait(10)
    assert second.ask(b"COMMIT\n") == b"COMMIT\n"  # once only
    assert server.heard.count(b"COMMIT\n") == fault.count == proxy.stats.faults == 1


def test_a_request_whose_answer_is_lost(proxy, server, connect):
    fault = proxy.cut_on(b"COMMIT", "up", before=False, times=2)
    lost = [connect().ask(b"COMMIT\n") for _ in range(3)]
    assert lost == [None, None, b"COMMIT\n"]
    assert (server.heard.count(b"COMMIT\n"), fault.count) == (3, 2)


def test_only_an_answer_that_tells_it_is_lost_and_a_part_of_it_may_go_through(proxy, connect):
    proxy.cut_on(re.compile(rb"^poll"), "up", before=False, answer=b"JOB", through=6)
    line = connect()
    assert line.ask(b"poll\n") == b"POLL\n"
    assert line.ask(b"other job\n") is None  # the answer that a poll awaits, as far as it can tell
    line = connect()
    proxy.heal()
    proxy.cut_on(b"poll", "up", before=False, through=6)
    line.say(b"poll 12345\n")
    assert line.file.read() == b"POLL 1"


def test_an_answer_is_cut_before_or_behind_what_it_tells(proxy, connect):
    proxy.cut_on(b"JOB", "down")
    assert connect().ask(b"job\n") is None
    proxy.cut_on(b"JOB", "down", before=False)
    line = connect()
    assert line.ask(b"job\n") == b"JOB\n"
    assert line.ask(b"more\n") is None


def test_a_pattern_is_found_where_it_comes_in_pieces(proxy, server, connect):
    fault = proxy.cut_on(b"COMMIT")
    line = connect()
    line.say(b"COM")
    wait_until(lambda: proxy.stats.bytes_up == 3, "the first piece to pass")
    assert line.ask(b"MIT\n") is None
    assert fault.happened.is_set()
    assert server.heard in ([], [b"COM"])


def test_a_pattern_counts_only_behind_what_it_follows(proxy, connect):
    fault = proxy.cut_on(b"COMMIT", following=b"INSERT")
    line, other = connect(), connect()
    assert line.ask(b"COMMIT\n") == b"COMMIT\n"
    assert other.ask(b"INSERT\n") == b"INSERT\n"
    assert line.ask(b"COMMIT\n") == b"COMMIT\n"  # that was on another connection
    assert other.ask(b"COMMIT\n") is None
    assert fault.count == 1


def test_a_connection_is_cut_after_so_many_bytes(proxy, server, connect):
    proxy.cut_after(8, "down")
    line = connect()
    line.say(b"hello\n")
    line.say(b"world\n")
    assert line.file.read() == b"HELLO\nWO"
    proxy.cut_after(3, "up")
    assert connect().ask(b"again\n") is None
    assert b"again\n" not in server.heard


def test_a_silent_fault_keeps_the_connection_open(proxy, connect):
    fault = proxy.cut_on(b"poll", "up", before=False, silently=True)
    line = connect()
    line.say(b"poll\n")
    assert fault.happened.wait(10)
    line.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        line.file.readline()
    assert proxy.stats.open == 1


def test_a_black_hole_holds_everything_until_it_is_healed(proxy, server, connect):
    line = connect()
    assert line.ask(b"before\n") == b"BEFORE\n"
    proxy.black_hole()
    line.say(b"held\n")
    other = connect()
    other.say(b"new\n")
    line.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        line.socket.recv(1)
    assert server.heard == [b"before\n"]
    line.socket.settimeout(10)
    proxy.heal()
    assert line.socket.recv(10) == b"HELD\n"
    assert other.file.readline() == b"NEW\n"


def test_latency_delays_both_ways_without_holding_up_what_comes_behind(proxy, connect):
    line = connect()
    assert line.ask(b"quick\n") == b"QUICK\n"
    proxy.latency(0.1)
    began = time.monotonic()
    for n in range(20):  # in chunks of their own, more or less
        line.say(b"%d\n" % n)
    assert [line.file.readline() for _ in range(20)] == [b"%d\n" % n for n in range(20)]
    took = time.monotonic() - began
    assert 0.2 <= took < 4.0  # what it is one by one, at least
    proxy.heal()
    assert line.ask(b"quick\n") == b"QUICK\n"


def test_a_reset_is_seen_as_one_and_new_connections_go_through(proxy, connect):
    line = connect()
    assert line.ask(b"hello\n") == b"HELLO\n"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        line.socket.recv(10)
    wait_until(lambda: proxy.stats.open == 0, "the connection to end")
    assert connect().ask(b"hello\n") == b"HELLO\n"


def test_a_server_that_is_not_there_resets_who_connects(server):
    server.shutdown()
    server.server_close()

    def ask(address):  # the reset may come while it still connects
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"hello\n")
            connection.recv(10)

    with FaultProxy(server.server_address) as proxy, pytest.raises(ConnectionError):
        ask(proxy.address)


def test_what_a_client_says_can_be_recorded_and_an_url_be_sent_through_it(server):
    url = f"redis://:word@127.0.0.1:{server.server_address[1]}/0?x=1"
    with FaultProxy.before(url, record=re.compile(rb"GET ")) as proxy:
        host, port = proxy.address
        assert proxy.url(url) == f"redis://:word@{host}:{port}/0?x=1"
        line = Line(proxy.address)
        for said in (b"GET one\n", b"PUT two\n", b"GET three\n"):
            assert line.ask(said) == said.upper()
        assert list(proxy.recorded) == [b"GET one\n", b"GET three\n"]
        line.file.close()
        line.socket.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port), timeout=5)
