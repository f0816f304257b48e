"""The connection to PostgreSQL, as every process makes it."""

import socket

from bridge.db import make_engine
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
