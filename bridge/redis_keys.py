"""Every key of ours in Redis (prefix: BRIDGE_REDIS_PREFIX). Celery has its queues, `bridge.unacked*` and results there.

    bridge:{<tenant>:<content type>}:pending:<priority>   list of job IDs; pushed left, claimed from the right (head)
    bridge:{<tenant>:<content type>}:claimed:<process>    IDs that a process has taken and not yet settled
    bridge:epoch                                          missing: the mirror is gone and must be rebuilt
    bridge:suspects                                       what the last look found in claimed lists; expires
    bridge:rebuilding                                     who rebuilds the mirror; expires
    bridge:rebuilt                                        how far that has come; missing: from the start
    bridge:probe                                          empty: moved onto itself to see whether Redis takes writes

    bridge:workers:{<tenant>}:seen    sorted set: <key ID>/<worker ID>, by when the worker was last seen asking
    bridge:workers:{<tenant>}:asks    hash: <key ID>/<worker ID> → the content types it asks for and its slots, as JSON
    bridge:workers:{<tenant>}:facts   hash: <key ID>/<worker ID> → what it says about itself and its machine, as JSON
    bridge:parked                     hash: process → how many polls of each tenant wait there, and since when

    bridge:limits:<what>:<whose>[:<minute>]   requests of a minute; or hash: process → parked polls and since when

The braces keep the keys of a queue, and those of a tenant, on one Redis Cluster slot. All of it may be
lost at any time.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from bridge.names import TENANT_PATTERN
from bridge.queues import Queue
from models.job_state import Priority

_NAME = re.compile(TENANT_PATTERN)


class QueueList(NamedTuple):
    """What the name of a queue's list means."""

    queue: Queue
    kind: str  # "pending" or "claimed"
    last: str  # the priority of a pending list, the process of a claimed one


class RedisKeys:
    """The names of the keys, and what a name that was found means."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.epoch = f"{prefix}:epoch"
        self.suspects = f"{prefix}:suspects"
        self.rebuilding = f"{prefix}:rebuilding"
        self.rebuilt = f"{prefix}:rebuilt"
        self.probe = f"{prefix}:probe"
        self.parked = f"{prefix}:parked"
        self.any_queue = f"{prefix}:{{*"  # a pattern for SCAN
        self._of_a_queue = re.compile(re.escape(prefix) + r":\{([^:}]*):([^}]*)\}:(pending|claimed):(.*)", re.DOTALL)

    def pending(self, queue: Queue, priority: Priority) -> str:
        return f"{self._prefix}:{{{queue.tenant}:{queue.content_type}}}:pending:{priority}"

    def claimed(self, queue: Queue, process: str) -> str:
        return f"{self._prefix}:{{{queue.tenant}:{queue.content_type}}}:claimed:{process}"

    def workers(self, tenant: str) -> tuple[str, str, str]:
        """Return the keys of who was seen, what they ask for, and what they say about themselves."""
        name = f"{self._prefix}:workers:{{{tenant}}}"
        return f"{name}:seen", f"{name}:asks", f"{name}:facts"

    def limit(self, counted: Iterable[str]) -> str:
        """Return the key of a count that the processes share: what is counted, whose, and the minute, if any."""
        return ":".join([self._prefix, "limits", *counted])

    def queue_list(self, key: str) -> QueueList | None:
        """Parse a key that matched `any_queue`; return None if it is none of ours."""
        found = self._of_a_queue.fullmatch(key)
        if found is None:
            return None
        tenant, content_type, kind, last = found.groups()
        return QueueList(Queue(tenant, content_type), kind, last)


def has_valid_names(queue: Queue) -> bool:
    """Return whether a job can have both names: whoever reaches Redis can write a key with any."""
    return bool(_NAME.fullmatch(queue.tenant) and _NAME.fullmatch(queue.content_type))
