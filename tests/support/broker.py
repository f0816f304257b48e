"""What lies in a queue of the broker, read without taking it out; and the outcomes that are sent there."""

import base64
import json
from typing import Any, NamedTuple

import redis

from tests.support.running import Running
from tests.support.waiting import wait_until

OUTCOME = "SELECT * FROM continuations WHERE job_id = :id AND n = :n"


class Message(NamedTuple):
    """A task that waits in a queue, as its consumer would receive it."""

    id: str
    task: str
    kwargs: dict[str, Any]
    headers: dict[str, Any]


def messages(broker_url: str, queue: str, job_id: str | None = None) -> list[Message]:
    """Return the tasks in a queue, oldest first; with `job_id` only those whose kwargs name it."""
    with redis.Redis.from_url(broker_url, decode_responses=True) as client:
        raw = client.lrange(queue, 0, -1)
    found = []
    for one in map(json.loads, reversed(raw)):
        _, kwargs, _ = json.loads(base64.b64decode(one["body"]))
        headers = one["headers"]
        found.append(Message(headers["id"], headers["task"], kwargs, headers))
    return [message for message in found if job_id is None or message.kwargs.get("job_id") == job_id]


def handed_over(bridge: Running, job_id: str) -> list[Message]:
    """Return what the pipeline would receive about a job: every delivery, oldest first."""
    return messages(bridge.settings.require("broker_url"), bridge.settings.continuation_queue, job_id)


def outcome(bridge: Running, job_id: str, n: int = 1) -> Any:
    """Return the row of one outcome of a job."""
    return bridge.sql(OUTCOME, id=job_id, n=n)[0]


def delivered(bridge: Running, job_id: str, count: int = 1) -> list[Message]:
    """Return the deliveries of a job's outcomes, once there are `count`."""

    def enough() -> list[Message] | None:
        bridge.stack.keep_up()  # Celery's worker may end by itself when its broker goes (docs/operations.md)
        found = handed_over(bridge, job_id)
        return found if len(found) >= count else None

    return wait_until(enough, f"{count} deliveries about {job_id}")
