"""A queue, and a job's place in it: the words that the mirror, the core and the polls share."""

import re
from collections.abc import Collection
from typing import NamedTuple

from models.job_state import Priority

RANKS = list(Priority)  # by what the database stores of a priority

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_job_id(text: str) -> bool:
    """Return whether this can be a job's ID: whoever reaches Redis can write anything into a list."""
    return _JOB_ID.fullmatch(text) is not None


class Queue(NamedTuple):
    """The pending jobs of one content type of one tenant."""

    tenant: str
    content_type: str


def as_columns(queues: Collection[Queue]) -> dict[str, list[str]]:
    """Return queues as the parameters of a statement that takes any number of them."""
    return {"tenants": [one.tenant for one in queues], "content_types": [one.content_type for one in queues]}


class Entry(NamedTuple):
    """A job's place in the mirror."""

    queue: Queue
    priority: Priority
    job_id: str
