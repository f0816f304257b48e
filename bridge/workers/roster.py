"""The workers of a tenant: who asked for what and when, what they hold, and who is paused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import gevent
from sqlalchemy import Connection, Row, text

from bridge.caller import NO_KEY
from bridge.runtime import Runtime
from bridge.workers import facts
from bridge.workers.facts import Facts
from bridge.workers.pauses import Pause, now_paused, of_worker
from bridge.workers.registry import AT_ONCE, Worker, WorkerRegistry
from bridge.workers.slots import UNTOLD, Slots

MOST_JOBS = 100  # IDs shown of what a worker holds
TURN_SECONDS = 5.0  # the longest wait for another roster

KEYS = text("SELECT id, name, prefix FROM api_keys WHERE tenant = :tenant")
# What each worker holds, and its last sign of life that was written. A lease shows when it was last renewed: its length
# before its end.
HELD = text(f"""
SELECT key_id, worker_id, count(*) AS jobs,
  CAST((array_agg(id ORDER BY started_at, id))[1:{MOST_JOBS}] AS text[]) AS ids,
  (array_agg(DISTINCT content_type))[1:32] AS content_types,
  max(greatest(started_at, acknowledged_at, CASE WHEN acknowledged_at IS NOT NULL
    THEN lease_expires_at - make_interval(secs => lease_seconds) END)) AS sign
FROM remote_jobs WHERE status = 'processing' AND ack_by IS NOT NULL AND key_id = ANY (CAST(:keys AS uuid[]))
  AND tenant = :tenant
GROUP BY key_id, worker_id
""")


class Key(NamedTuple):
    """The part of a key that is shown."""

    name: str
    prefix: str


class WorkerInfo(NamedTuple):
    """A worker, and what is known about it."""

    worker_id: str
    key: Key | None  # None: with keys off, or of a pause for all keys
    content_types: Sequence[str]  # that it was last seen asking for; else of the jobs it holds
    denied_content_types: Sequence[str]
    last_seen: datetime | None
    jobs_in_hand: int
    job_ids: Sequence[str]  # some of them, where it holds many
    pause: Pause | None
    key_id: UUID | None = None
    slots: Slots = UNTOLD
    facts: Facts = facts.UNTOLD
    held_types: Sequence[str] = ()  # the content types of the jobs that it holds


class Roster(NamedTuple):
    """The workers of a tenant, those seen last first; whether Redis could say who asked."""

    hands: list[WorkerInfo]
    redis: bool


def roster_of(runtime: Runtime, seen: WorkerRegistry, tenant: str) -> Roster:
    """List who was seen within an hour, who holds a job, and who is paused, even if never seen.

    One is built at a time, as long as it does not have to wait for PostgreSQL or Redis for long.
    """
    in_turn = seen.turn.acquire(timeout=TURN_SECONDS)
    try:
        return _roster(runtime, seen, tenant)
    finally:
        if in_turn:
            seen.turn.release()


def _roster(runtime: Runtime, seen: WorkerRegistry, tenant: str) -> Roster:
    answer = runtime.mirror.breaker.ask("read who was seen", lambda: seen.read(tenant))
    asking = answer or {}
    with runtime.engine.connect() as connection:
        keys = {row.id: Key(row.name, row.prefix) for row in connection.execute(KEYS, {"tenant": tenant})}
        held = _held(connection, tenant, [*keys, NO_KEY])
        pauses = now_paused(connection, tenant)
    placed = []
    by_name: dict[str, list[Pause]] = {}
    for pause in pauses:
        by_name.setdefault(pause.worker_id, []).append(pause)
    everybody = asking.keys() | held.keys() | {Worker(p.key_id, p.worker_id) for p in pauses if p.key_id is not None}
    for number, who in enumerate(everybody):
        if number % AT_ONCE == 0:
            gevent.sleep(0)  # others run meanwhile
        asks, holds = asking.get(who), held.get(who)
        moments = [datetime.fromtimestamp(asks.at, UTC)] if asks else []
        moments += [holds.sign] if holds else []
        hand = WorkerInfo(
            who.worker_id,
            keys.get(who.key_id),
            sorted(asks.content_types if asks else holds.content_types if holds else ()),
            sorted(asks.denied) if asks else (),
            max(moments, default=None),
            holds.jobs if holds else 0,
            holds.ids if holds else (),
            of_worker(by_name.get(who.worker_id, ()), who.key_id),
            who.key_id,
            asks.slots if asks else UNTOLD,
            asks.facts if asks else facts.UNTOLD,
            holds.content_types if holds else (),
        )
        placed.append((_place(hand), hand))
    known = {who.worker_id for who in everybody}
    never_seen = [WorkerInfo(p.worker_id, None, (), (), None, 0, (), p) for p in pauses if p.worker_id not in known]
    placed += [(_place(hand), hand) for hand in never_seen]
    placed.sort(key=itemgetter(0))
    return Roster([hand for _, hand in placed], answer is not None)


def _place(hand: WorkerInfo) -> tuple[float, str, str]:
    """Return the sort key: those seen last first, the others by name."""
    return (inf if hand.last_seen is None else -hand.last_seen.timestamp(), hand.worker_id, str(hand.key_id))


def _held(connection: Connection, tenant: str, keys: Sequence[UUID]) -> dict[Worker, Row[Any]]:
    rows = connection.execute(HELD, {"tenant": tenant, "keys": [str(key) for key in keys]})
    return {Worker(row.key_id, row.worker_id): row for row in rows}
