"""Celery's consumer of messages, which closes a connection that it could not use.

Celery forgets a connection whose first command the broker refused, and leaves it open: a Redis that is read-only for a
quarter of an hour would have all its 10 000 connections taken by one worker. This module is meant to be copied.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):
    """Set as `worker_consumer`."""

    _opened: Any = None

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Note the connection, so that `connect` can close it."""
        self._opened = super().connection_for_read(heartbeat)
        return self._opened

    def connect(self) -> Any:
        """Return the connection, ready to be consumed from. Raises what the broker's refusal raises."""
        with ExitStack() as unusable:
            self._opened = None
            unusable.callback(self._close)
            connection = super().connect()
            unusable.pop_all()
        return connection

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.collect()
