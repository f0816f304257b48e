"""Celery's consumer of messages, which neither leaks connections nor goes deaf where the broker fails."""

from contextlib import ExitStack
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import redis, virtual


class Unacknowledged(redis.QoS):
    """The messages in hand. One whose acknowledgement the broker did not take is in hand no more.

    Kombu goes on counting it, so that each one takes a place of the prefetch for good: with the last place the worker
    asks for nothing any more, hears of no lost connection, and stays so. The message itself comes back after the
    visibility timeout, and is done twice.
    """

    def ack(self, delivery_tag: str) -> None:
        """Raises what the broker's client raises."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Raises what the broker's client raises."""
        try:
            super().reject(delivery_tag, requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing


class Consumer(CeleryConsumer):
    """Opens a connection at each try. Celery forgets one whose first command the broker refused, and leaves it open.

    A Redis that is read-only for a quarter of an hour would have all its 10 000 connections taken by one worker.
    """

    _opened: Any = None

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Note the connection, so that `connect` can close it."""
        self._opened = super().connection_for_read(heartbeat)
        self._opened.default_channel.QoS = Unacknowledged  # before anything asks the channel for its own
        return self._opened

    def connect(self) -> Any:
        """The connection, ready to be consumed from. Raises what the broker's refusal raises."""
        with ExitStack() as unusable:
            self._opened = None
            unusable.callback(self._close)
            connection = super().connect()
            unusable.pop_all()
        return connection

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.collect()
