"""Celery's consumer of messages, which neither leaks connections nor stops consuming when the broker fails.

Celery forgets a connection whose first command the broker refused, and leaves it open: while Redis is read-only for a
quarter of an hour, a single worker would take all its 10 000 connections. And kombu goes on counting a message whose
acknowledgement failed: each one takes a place of the prefetch for good, and with the last place taken, the worker
fetches nothing any more. Here the place is freed; the message comes back after the visibility timeout.
This module is meant to be copied.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import redis, virtual


class Unacknowledged(redis.QoS):
    """The unacknowledged messages, without those whose acknowledgement the broker refused."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message. Raises what the broker's client raises."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Requeue or drop a message. Raises what the broker's client raises."""
        try:
            super().reject(delivery_tag, requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing


class Consumer(CeleryConsumer):
    """Set as `worker_consumer`."""

    _opened: Any = None

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Note the connection, so that `connect` can close it."""
        self._opened = super().connection_for_read(heartbeat)
        self._opened.default_channel.QoS = Unacknowledged  # before anything uses the channel's own
        return self._opened

    def connect(self) -> Any:
        """Return the connection, ready to consume from. Raises what the broker's refusal raises."""
        with ExitStack() as unusable:
            self._opened = None
            unusable.callback(self._close)
            connection = super().connect()
            unusable.pop_all()
        return connection

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.collect()
