"""What is in the broker's queues: the bridge looks before it adds to one, so that none grows that nobody reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.exceptions import OperationalError


def lying(app: Celery, *queues: str) -> int:
    """Count the messages that wait in these queues, without those that a consumer has taken.

    Raises kombu's OperationalError when the broker does not answer.
    """
    with _channel(app) as channel:
        return sum(_length(channel, queue) for queue in queues)


def next_message(app: Celery, queue: str) -> bytes | None:
    """Return the message that is taken next from a queue, as it is stored; None if there is none.

    Raises kombu's OperationalError when the broker does not answer.
    """
    with _channel(app) as channel:
        found = channel.client.lindex(queue, -1)
    return found.encode() if isinstance(found, str) else found


@contextmanager
def _channel(app: Celery) -> Iterator[Any]:
    """Lend a channel to the broker; what its client raises inside becomes kombu's OperationalError."""
    connection: Any
    with app.pool.acquire(block=True) as connection:
        try:
            yield connection.default_channel
        except (*connection.connection_errors, *connection.channel_errors) as error:
            raise OperationalError(str(error)) from error


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError as error:
        if str(error.reply_code) != "404":  # Redis has no empty lists
            raise
        return 0
