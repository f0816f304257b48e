"""How many jobs keys and tenants have in PostgreSQL, as of the last look: claimed, pending, of which content types.

A look costs as much as there is to count, so it is made beside the requests, only for those that asked lately, and
seldom enough to take at most a fiftieth of the time. What this process added since is counted in between.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import Engine, text

K = TypeVar("K")
Found = dict[K, tuple[int, set[str]]]  # whose → how many jobs, and of which content types

LOOK_SECONDS = 1.0
SHARE = 50  # a look that took t is not repeated before 50 t have passed
LATELY_SECONDS = 30.0

IN_HAND = text("""
SELECT key_id, count(*) FROM remote_jobs WHERE status = 'processing' AND ack_by IS NOT NULL
  AND key_id = ANY(CAST(:keys AS uuid[])) GROUP BY 1
""")
HELD = text("""
SELECT count(*) FROM (
  SELECT FROM remote_jobs WHERE tenant = :tenant AND status = 'processing' LIMIT :most
) counted
""")
PENDING = text("""
SELECT count(*) FROM (
  SELECT FROM remote_jobs WHERE tenant = :tenant AND status = 'pending' AND completed_at IS NULL LIMIT :most
) counted
""")
# By skipping through the index from one content type to the next.
TYPES = text("""
WITH RECURSIVE seen AS (
  (SELECT content_type FROM remote_jobs WHERE tenant = :tenant AND status = 'pending' AND completed_at IS NULL
   ORDER BY content_type LIMIT 1)
  UNION ALL
  (SELECT next.content_type FROM seen, LATERAL (
    SELECT content_type FROM remote_jobs
    WHERE tenant = :tenant AND status = 'pending' AND completed_at IS NULL AND content_type > seen.content_type
    ORDER BY content_type LIMIT 1
  ) next)
)
SELECT content_type FROM seen LIMIT :most
""")


@dataclass
class Usage:
    """How many jobs there were at the last look, and what came since."""

    count: int = 0
    types: set[str] = field(default_factory=set)
    added: int = 0
    asked: float = field(default_factory=time.monotonic)
    next_look: float = 0.0

    @property
    def now(self) -> int:
        return self.count + self.added


class UsageTable(Generic[K]):
    """The usage of each key or tenant that asked lately; `look` recounts it."""

    def __init__(self) -> None:
        self._usages: dict[K, Usage] = {}

    def of(self, whose: K) -> Usage:
        usage = self._usages.setdefault(whose, Usage())
        usage.asked = time.monotonic()
        return usage

    def due(self) -> list[K]:
        """Return those whose usage is to be counted; forget those who no longer ask."""
        now = time.monotonic()
        self._usages = {whose: usage for whose, usage in self._usages.items() if now - usage.asked < LATELY_SECONDS}
        return [whose for whose, usage in self._usages.items() if now >= usage.next_look]

    def look(self, whose: list[K], count: Callable[[list[K]], Found[K]]) -> None:
        """Replace these usages with what `count` finds."""
        usages = {one: self._usages[one] for one in whose}
        before = {one: usage.added for one, usage in usages.items()}
        began = time.monotonic()
        found = count(whose)
        now = time.monotonic()
        for one, usage in usages.items():
            usage.count, usage.types = found.get(one, (0, set()))
            usage.added -= before[one]  # what came while it was counted may be counted twice, until the next look
            usage.next_look = now + max(LOOK_SECONDS, SHARE * (now - began))


def in_hand(engine: Engine, keys: list[UUID]) -> Found[UUID]:
    """Count the jobs that the workers of each key hold."""
    with engine.connect() as connection:
        return {row[0]: (row[1], set()) for row in connection.execute(IN_HAND, {"keys": [str(key) for key in keys]})}


def held(engine: Engine, most: int, tenants: list[str]) -> Found[str]:
    """Count the jobs that the workers of each tenant hold, up to one more than `most`."""
    with engine.connect() as connection:
        counts = {one: connection.scalar(HELD, {"tenant": one, "most": most + 1}) for one in tenants}
    return {tenant: (int(count or 0), set()) for tenant, count in counts.items()}


def waiting(engine: Engine, most_jobs: int, most_types: int, tenants: list[str]) -> Found[str]:
    """Count the waiting jobs of each tenant and collect their content types, up to one more than the most of each."""
    found: Found[str] = {}
    with engine.connect() as connection:
        for tenant in tenants:
            count = connection.scalar(PENDING, {"tenant": tenant, "most": most_jobs + 1})
            types = connection.scalars(TYPES, {"tenant": tenant, "most": most_types + 1})
            found[tenant] = (int(count or 0), set(types))
    return found
