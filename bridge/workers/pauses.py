"""Pausing and draining workers: what an operator asks for, and who is paused now.

A drain is a pause that also tells its worker to finish what it holds and to end.

A pause is kept in PostgreSQL, where it survives the loss of Redis; each API process reads the few that there are once
a second (bridge/long_poll/pause_watch.py).
"""

import math
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import Uuid

from bridge.errors import Draining, Invalid, Paused, TooMany
from bridge.runtime import Runtime
from models.pause import PausedBy

ASK_AGAIN_SECONDS = 10  # told to a worker whose pause has no end yet

_ACTIVE = "(until IS NULL OR until > now())"
NOW_PAUSED = text(f"""
SELECT tenant, worker_id, key_id, by, reason, paused_at, until,
  CAST(extract(epoch FROM until - now()) AS float) AS seconds_left, drain
FROM worker_pauses WHERE {_ACTIVE} AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant) ORDER BY id
""")
PAUSE = text(f"""
INSERT INTO worker_pauses (tenant, worker_id, key_id, by, reason, drain, paused_at, until)
VALUES (:tenant, :worker_id, :key_id, '{PausedBy.OPERATOR}', :reason, :drain, now(),
  now() + make_interval(secs => CAST(:seconds AS float)))
ON CONFLICT (tenant, worker_id, key_id, by) DO UPDATE SET
  reason = excluded.reason, drain = excluded.drain, paused_at = excluded.paused_at, until = excluded.until
RETURNING until
""").bindparams(bindparam("key_id", type_=Uuid))

# A pause by the bridge is ended, not deleted: what was claimed before it ended is not held against the worker again.
RESUME = text(f"""
WITH its AS (
  SELECT id, by FROM worker_pauses WHERE tenant = :tenant AND worker_id = :worker_id AND {_ACTIVE}
    AND (CAST(:key_id AS uuid) IS NULL OR key_id = :key_id)
  ORDER BY id FOR UPDATE
), deleted AS (
  DELETE FROM worker_pauses p USING its WHERE p.id = its.id AND its.by = '{PausedBy.OPERATOR}'
)
UPDATE worker_pauses p SET until = now(), in_a_row = 0 FROM its WHERE p.id = its.id AND its.by = '{PausedBy.BRIDGE}'
""").bindparams(bindparam("key_id", type_=Uuid))
# Two that are asked for at the same moment are counted one after the other.
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('pauses of ' || :tenant, 0))")
OTHERS = text(f"""
SELECT count(*) FROM (
  SELECT FROM worker_pauses WHERE tenant = :tenant AND by = '{PausedBy.OPERATOR}' AND {_ACTIVE}
    AND (worker_id, key_id) IS DISTINCT FROM (:worker_id, :key_id) LIMIT :most
) others
""").bindparams(bindparam("key_id", type_=Uuid))
KEY = text("SELECT id FROM api_keys WHERE tenant = :tenant AND prefix = :prefix")


class Pause(NamedTuple):
    """A pause in force."""

    tenant: str
    worker_id: str
    key_id: UUID | None  # None: whichever key the worker uses
    by: str
    reason: str
    paused_at: datetime
    until: datetime | None
    seconds_left: float | None
    drain: bool = False

    def covers(self, key_id: UUID) -> bool:
        return self.key_id is None or self.key_id == key_id


def now_paused(connection: Connection, tenant: str | None = None) -> list[Pause]:
    """Return the pauses in force, of a tenant or of all."""
    return [Pause(*row) for row in connection.execute(NOW_PAUSED, {"tenant": tenant})]


def of_worker(pauses: Iterable[Pause], key_id: UUID) -> Pause | None:
    """Return the longest of one worker_id's pauses that cover this key; a drain comes before all others."""
    covering = [pause for pause in pauses if pause.covers(key_id)]
    return max(covering, key=_lasts, default=None)


def _lasts(pause: Pause) -> tuple[bool, float]:
    return pause.drain, math.inf if pause.seconds_left is None else pause.seconds_left


def refusal(pause: Pause) -> Paused:
    """Return the refusal that the worker is shown, with the reason."""
    who = "An operator" if pause.by == PausedBy.OPERATOR else "The bridge"
    left = ASK_AGAIN_SECONDS if pause.seconds_left is None else max(1, math.ceil(pause.seconds_left))
    if pause.drain:
        return Draining(f"{who} drains worker {pause.worker_id}: {pause.reason}", retry_after=left)
    return Paused(f"{who} has paused worker {pause.worker_id}: {pause.reason}", retry_after=left)


def pause(
    runtime: Runtime,
    tenant: str,
    worker_id: str,
    reason: str,
    seconds: float | None = None,
    prefix: str | None = None,
    *,
    drain: bool = False,
) -> datetime | None:
    """Give a worker no jobs until it is resumed or `seconds` have passed; return when the pause ends, if it does.

    `prefix` names one key; else the pause holds for all keys of the tenant with that worker_id, whether they were
    seen or not. What the worker holds stays with it. `drain` tells it to end when it has finished that. A repetition
    of either, a pause or a drain, replaces what there was. Raises Invalid, and TooMany beyond `pauses` of
    BRIDGE_LIMITS.
    """
    with runtime.engine.begin() as connection:
        key_id = _key(connection, tenant, prefix)
        most = runtime.settings.limits.pauses
        connection.execute(ONE_AT_A_TIME, {"tenant": tenant})
        worker = {"tenant": tenant, "worker_id": worker_id, "key_id": key_id}
        if (connection.scalar(OTHERS, {**worker, "most": most}) or 0) >= most:
            raise TooMany(f"Operators of this tenant have {most} paused workers already; resume some.", retry_after=60)
        until: datetime | None = connection.scalar(
            PAUSE, {**worker, "reason": reason, "seconds": seconds, "drain": drain}
        )
        return until


def resume(runtime: Runtime, tenant: str, worker_id: str, prefix: str | None = None) -> None:
    """End every pause and drain of a worker, by an operator or by the bridge (of one key, where `prefix` names it).

    Nothing changes for a worker that is not paused. Raises Invalid.
    """
    with runtime.engine.begin() as connection:
        key_id = _key(connection, tenant, prefix)
        connection.execute(RESUME, {"tenant": tenant, "worker_id": worker_id, "key_id": key_id})


def _key(connection: Connection, tenant: str, prefix: str | None) -> UUID | None:
    if prefix is None:
        return None
    key_id: UUID | None = connection.scalar(KEY, {"tenant": tenant, "prefix": prefix})
    if key_id is None:
        raise Invalid({"key": ["Not the prefix of one of this tenant's keys."]})
    return key_id
