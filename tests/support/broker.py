"""What lies in a queue of the broker, read without taking it out; and the outcomes that are sent there."""

import base64
import json
from typing import Any, NamedTuple

import redis

from tests.support.running import Running
from tests.support.waiting import wait_until


class Message(NamedTuple):
    """A task that waits in a queue, as its consumer would receive it."""

    id: str
    task: str
    kwargs: dict[str, Any]
    headers: dict[str, Any]


def handed_over(bridge: Running, job_id: str) -> list[Message]:
    """Return what the pipeline would receive about a job: every delivery, oldest first."""
    with redis.Redis.from_url(bridge.settings.require("broker_url"), decode_responses=True) as client:
        raw = client.lrange(bridge.settings.continuation_queue, 0, -1)
    found = []
    for one in map(json.loads, reversed(raw)):
        _, kwargs, _ = json.loads(base64.b64decode(one["body"]))
        headers = one["headers"]
        found.append(Message(headers["id"], headers["task"], kwargs, headers))
    return [message for message in found if message.kwargs.get("job_id") == job_id]


def outcome(bridge: Running, job_id: str) -> Any:
    """Return the row of a job's first outcome."""
    return bridge.sql("SELECT * FROM continuations WHERE job_id = :id AND n = 1", id=job_id)[0]


def delivered(bridge: Running, job_id: str) -> list[Message]:
    """Return the deliveries of a job's outcomes, once there is one."""

    def found() -> list[Message]:
        bridge.stack.keep_up()  # Celery's worker may end by itself when its broker goes (docs/operations.md)
        return handed_over(bridge, job_id)

    return wait_until(found, f"a delivery about {job_id}")
