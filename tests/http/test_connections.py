"""Which connections a process that stops lets go, and when."""

import gevent
import gevent.socket
import pytest

from api.http.connections import NEW_SECONDS, QUIET_SECONDS, TICK_SECONDS, Connections

STRANGER = ("192.0.2.1", 40000)


@pytest.fixture
def connections():
    return Connections(100, 75.0, ())


@pytest.fixture
def waiting(connections):
    """A connection that waits for its first request, and the client's end of it."""
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
    aged(connection, NEW_SECONDS - 0.1)
    connections.let_go()
    assert can_be_asked(connection, client)
    connections.serve(connection)
    connections.wait(connection)
    aged(connection, QUIET_SECONDS)
    connections.let_go()
    assert connection.recv(10) == b""
    assert not can_be_asked(connection, client)


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


def test_time_in_which_this_process_did_not_run_is_none_in_which_the_client_said_nothing(connections, waiting):
    connection, client = waiting
    connections._ticked -= 100 * NEW_SECONDS  # as after SIGSTOP, or on a machine that was frozen
    connections.tick()
    connections.let_go()
    assert can_be_asked(connection, client)
    aged(connection, NEW_SECONDS - TICK_SECONDS)
    connections.let_go()
    assert connection.recv(10) == b""
