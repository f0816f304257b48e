"""A requests adapter whose waiting connections can be ended from another thread.

A long-poll blocks its thread in recv for up to a minute; a worker that stops ends it at once, so that
the bridge notices and gives it no more jobs. Through a proxy the poll ends by its own timeout.
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class AbortableAdapter(HTTPAdapter):
    """Keeps weak references to its connections; `abort` shuts their sockets down."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make pools whose connections register themselves when they connect."""
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _registering(HTTPConnectionPool, self._connections),
            "https": _registering(HTTPSConnectionPool, self._connections),
        }

    def abort(self) -> None:
        """End every connection, from any thread; whoever waits on one gets a connection error."""
        for connection in list(self._connections):
            if (sock := getattr(connection, "sock", None)) is not None:
                with contextlib.suppress(OSError, TypeError):
                    # Also for TLS: SSLSocket.shutdown would remove the state that the reader uses.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _registering(pool: Any, register: weakref.WeakSet[Any]) -> Any:
    """Return a subclass of a urllib3 pool whose connections add themselves to `register` on connect."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc]  # http or https: known at run time
        def connect(self) -> None:
            super().connect()
            register.add(self)

    return type(f"Registering{pool.__name__}", (pool,), {"ConnectionCls": Connection})
