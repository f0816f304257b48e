"""What is in the broker's queues: the bridge looks before it adds to one, so that none grows that nobody reads."""

from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.exceptions import OperationalError


def lying(app: Celery, *queues: str) -> int:
    """Count the messages that wait in these queues, without those that a consumer has taken.

    Raises kombu's OperationalError when the broker does not answer.
    """
    connection: Any
    with app.pool.acquire(block=True) as connection:
        try:
            return sum(_length(connection.default_channel, queue) for queue in queues)
        except (*connection.connection_errors, *connection.channel_errors) as error:
            raise OperationalError(str(error)) from error


def next_message(app: Celery, queue: str) -> bytes | None:
    """Return the message that is taken next from a queue, as it is stored; None if there is none.

    Raises kombu's OperationalError when the broker does not answer.
    """
    connection: Any
    with app.pool.acquire(block=True) as connection:
        try:
            found = connection.default_channel.client.lindex(queue, -1)
        except (*connection.connection_errors, *connection.channel_errors) as error:
            raise OperationalError(str(error)) from error
    return found.encode() if isinstance(found, str) else found


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError as error:
        if str(error.reply_code) != "404":  # Redis has no empty lists
            raise
        return 0
