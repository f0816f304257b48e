"""Celery's consumer of messages, which neither leaks connections nor goes deaf where the broker fails.

Celery forgets a connection whose first command the broker refused, and leaves it open: a Redis that is read-only for a
quarter of an hour would have all its 10 000 connections taken by one worker. And kombu goes on counting a message
whose acknowledgement was cut off: each one takes a place of the prefetch for good, and with the last place the worker
asks for nothing any more, for ever. Here the place is free again; the message comes back after the visibility timeout.
This module is meant to be copied.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import redis, virtual


class Unacknowledged(redis.QoS):
    """The messages in hand, without those whose acknowledgement the broker did not take."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message. Raises what the broker's client raises."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back, or away. Raises what the broker's client raises."""
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
        self._opened.default_channel.QoS = Unacknowledged  # before anything asks the channel for its own
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
