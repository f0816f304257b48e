"""The connection to PostgreSQL, as every process makes it."""

import socket

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bridge.db import KEPT_BYTES, make_engine
from bridge.settings import load_settings


def test_the_kernel_gives_up_a_connection_that_says_nothing_within_a_minute(new_database):
    """Its own patience is a quarter of an hour for what was sent, and two hours for what is waited for."""
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": new_database()}))
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        wire = socket.socket(fileno=driver.fileno())
        try:
            tcp = lambda option: wire.getsockopt(socket.IPPROTO_TCP, option)  # noqa: E731
            assert tcp(socket.TCP_USER_TIMEOUT) == 20_000  # ms
            assert tcp(socket.TCP_KEEPIDLE) + tcp(socket.TCP_KEEPINTVL) * tcp(socket.TCP_KEEPCNT) <= 60
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        finally:
            wire.detach()
    engine.dispose()


def test_a_connection_that_has_sent_a_large_statement_is_not_kept(new_database):
    """libpq would keep a buffer of its size for as long as the connection lives."""
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": new_database()}), pool_size=1)
    ask = text("SELECT octet_length(:document), pg_backend_pid()")
    with engine.connect() as connection:
        first = connection.execute(ask, {"document": "x" * (KEPT_BYTES // 2)}).one()[1]
    with engine.begin() as connection:
        sizes = [connection.execute(ask, {"document": "x" * size}).one() for size in (1, 2 * KEPT_BYTES, 3)]
    assert sizes == [(1, first), (2 * KEPT_BYTES, first), (3, first)]  # not before its user is done with it
    with engine.connect() as connection:
        second = connection.execute(ask, {"document": ""}).one()[1]
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT :document / 0"), {"document": "x" * 2 * KEPT_BYTES})
    with engine.connect() as connection:
        third = connection.execute(ask, {"document": ""}).one()[1]
    engine.dispose()
    assert len({first, second, third}) == 3
