"""Which connections a process that stops lets go, and when."""

from contextlib import ExitStack
from types import SimpleNamespace

import gevent
import gevent.socket
import pytest

from api.http import connections as http_connections
from api.http.connections import FRESH_SECONDS, LATE_SECONDS, NEW_SECONDS, QUIET_SECONDS, TICK_SECONDS, Connections
from api.http.tus import Stopping, pieces

STRANGER = ("192.0.2.1", 40000)


@pytest.fixture
def connections():
    return Connections(100, 75.0, ())


@pytest.fixture
def waiting(connections):
    """Yield a connection that waits for its first request, and the client's end of it."""
    client, server = gevent.socket.socketpair()  # type: ignore[attr-defined]
    with client, server:
        connection = connections.open(server, STRANGER)
        connections.wait(connection)
        yield connection, client


def aged(connection, seconds: float):
    connection.quiet_since -= seconds


def can_be_asked(connection, client) -> bool:
    """Whether what the client sends is read, and the answer seen. (The kernel refuses at once what nobody can read.)"""
    try:
        client.sendall(b"GET")
    except BrokenPipeError:
        return False
    with gevent.Timeout(10):
        assert connection.recv(10) == b"GET"
        connection._client.sendall(b"200")
        return client.recv(10) == b"200"


def test_one_that_was_quiet_for_long_is_let_go_and_sooner_where_it_was_served(connections, waiting):
    connection, client = waiting
    aged(connection, (QUIET_SECONDS + NEW_SECONDS) / 2)
    connections.let_go()
    assert can_be_asked(connection, client)
    connections.serve(connection)
    connections.wait(connection)
    aged(connection, QUIET_SECONDS)
    connections.let_go()
    assert connection.recv(10) == b""
    assert not can_be_asked(connection, client)


def test_the_body_of_an_upload_alone_is_ended(connections, waiting):
    connection, client = waiting
    connections.serve(connection)
    connections.end_uploads()
    assert can_be_asked(connection, client)
    client.sendall(b"body")
    token = http_connections.CURRENT.set(connection)
    sent = SimpleNamespace(environ={"wsgi.input": SimpleNamespace(read=connection.recv)}, content_length=100)
    came = pieces(sent)  # type: ignore[arg-type]
    assert next(came) == b"body"
    for _ in range(2):
        connections.end_uploads()
    with pytest.raises(Stopping):
        next(came)
    http_connections.CURRENT.reset(token)
    assert not connection.resumable


def test_a_request_that_came_and_was_not_read_yet_is_served_however_long_nothing_came(connections, waiting):
    connection, client = waiting
    aged(connection, 10 * NEW_SECONDS)
    client.sendall(b"GET")
    connections.let_go()
    assert connection.recv(10) == b"GET"
    connection._client.sendall(b"200")
    assert client.recv(10) == b"200"


def test_a_stranger_whose_request_does_not_go_on_is_cut_unless_more_of_it_has_come(connections, waiting):
    connection, client = waiting
    client.sendall(b"G")
    assert connection.recv(10) == b"G"
    aged(connection, NEW_SECONDS)
    client.sendall(b"E")
    connections.let_go()
    assert connection.recv(10) == b"E"
    assert can_be_asked(connection, client)
    connections.let_go()
    assert not can_be_asked(connection, client)


def look_in(seconds: float, connections, connection):
    """As `tick` looks when so much time has passed."""
    connection._until -= seconds
    connections._looked -= LATE_SECONDS + 1
    connections.tick()


@pytest.mark.parametrize(("served", "begun", "seconds"), [(False, b"", 20), (False, b"GET", 20), (True, b"", 75)])
def test_who_is_late_with_a_request_is_let_go_and_nobody_before(connections, waiting, served, begun, seconds):
    connection, client = waiting
    if served:
        connections.serve(connection)
        connections.wait(connection)
    if begun:
        client.sendall(begun)
        assert connection.recv(10) == begun
    look_in(seconds - 2, connections, connection)
    assert not connection.unread
    look_in(2, connections, connection)
    with gevent.Timeout(10):
        assert connection.recv(10) == b""


def test_what_came_before_the_look_is_served(connections, waiting):
    connection, client = waiting
    client.sendall(b"GET")
    look_in(100, connections, connection)
    assert connection.recv(10) == b"GET"


def test_the_rest_of_a_head_that_is_late_is_not_read(connections, waiting):
    connection, client = waiting
    client.sendall(b"GET")
    assert connection.recv(10) == b"GET"
    connection._until -= 21
    client.sendall(b" / HTTP/1.1")
    assert connection.recv(10) == b""


def test_one_that_is_served_or_parked_is_never_late(connections, waiting):
    connection, client = waiting
    connections.serve(connection)
    look_in(1000, connections, connection)
    assert not connection.unread
    assert can_be_asked(connection, client)


def test_time_in_which_this_process_did_not_run_is_none_in_which_the_client_said_nothing(connections, waiting):
    connection, client = waiting
    connections._ticked -= 100 * NEW_SECONDS  # as after SIGSTOP, or on a machine that was frozen
    connections.tick()
    connections.let_go()
    assert can_be_asked(connection, client)
    aged(connection, NEW_SECONDS - TICK_SECONDS)
    connections.let_go()
    assert connection.recv(10) == b""


def test_one_that_is_known_is_not_cut_in_the_middle_of_its_next_request(connections, waiting):
    connection, client = waiting
    connections.serve(connection)
    connection.proven = True  # it has shown a valid key
    connections.wait(connection)
    client.sendall(b"G")
    assert connection.recv(10) == b"G"
    aged(connection, 10 * NEW_SECONDS)
    connections.let_go()
    assert can_be_asked(connection, client)
    connection._client.close()
    assert connection.unread, "its end is to be read"


def test_of_many_strangers_from_one_address_the_oldest_that_is_not_fresh_goes_for_the_next(monkeypatch):
    monkeypatch.setattr(http_connections, "MOST_STRANGERS", 1)
    many = Connections(100, 75.0, ())
    with ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, gevent.socket.socketpair())) for _ in range(3)]  # type: ignore[attr-defined]
        oldest = many.open(pairs[0][1], STRANGER)
        many.wait(oldest)
        many.open(pairs[1][1], STRANGER)
        assert can_be_asked(oldest, pairs[0][0])
        oldest.waits_since -= FRESH_SECONDS + 1
        many.open(pairs[2][1], STRANGER)
        assert not can_be_asked(oldest, pairs[0][0])


def test_where_none_is_left_the_one_that_owes_its_body_longest_goes_for_a_newcomer():
    few = Connections(2, 75.0, ("192.0.2.1",))
    with ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, gevent.socket.socketpair())) for _ in range(3)]  # type: ignore[attr-defined]
        older, newer = (few.open(server, STRANGER) for _, server in pairs[:2])
        reading = [gevent.spawn(one.recv, 10) for one in (older, newer)]
        gevent.sleep(0)
        few.open(pairs[2][1], STRANGER)
        assert reading[0].get(timeout=10) == b""
        pairs[1][0].sendall(b"body")
        assert reading[1].get(timeout=10) == b"body"
