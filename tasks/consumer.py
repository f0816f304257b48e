"""Celery's consumer of messages, which neither leaks connections nor stops consuming when the broker fails.

It also does less for each message (docs/decisions/0051-what-a-message-does-not-cost.md).
"""

import time
from contextlib import ExitStack
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import redis, virtual

EVENTS_SECONDS = 0.5  # for which task events are gathered before they are sent to Flower


class Unacknowledged(redis.QoS):
    """The unacknowledged messages, without those whose acknowledgement the broker refused.

    Kombu goes on counting these, so that each takes a place of the prefetch for good: with the last place taken, the
    worker fetches nothing any more, notices no lost connection, and stays like this. The message itself comes back
    after the visibility timeout, and is done twice.
    """

    channel: Any
    _one: Any = None

    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Any:
        """Use one client for all commands: kombu makes one for each, which takes longer than the command."""
        if pipe is None and client is None:
            if self._one is None or self._one.connection_pool is not self.channel.pool:  # else of a lost connection
                self._one = self.channel._create_client()  # noqa: SLF001
            client = self._one
        return super().pipe_or_acquire(pipe, client)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message and forget it. Raises what the broker's client raises."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message and forget it. Raises what the broker's client raises."""
        try:
            super().reject(delivery_tag, requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)  # a second time is nothing


class Consumer(CeleryConsumer):
    """Closes the connection of a failed try. Celery leaves one open whose first command the broker refused.

    While Redis is read-only for a quarter of an hour, a single worker would take all its 10 000 connections.
    """

    hub: Any
    _flush_events: Any
    _opened: Any = None
    _events_due = 0.0

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # its stub says a property
        """Send task events after half a second, or once there are 24; Celery sends them at once.

        By time, not by a flag: a lost connection clears the loop's timers.
        """
        now = time.monotonic()
        if self.hub and now >= self._events_due:
            self._events_due = now + EVENTS_SECONDS
            self.hub.call_later(EVENTS_SECONDS, self._flush_events)

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
