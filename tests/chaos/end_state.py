"""What PostgreSQL, Redis, the pipeline and the metrics hold when all is over: the other half of the evidence.

Times are turned into seconds of this machine's monotonic clock, which is also the servers'.
"""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine, text

from bridge.insight import counters
from models.job_state import FINAL


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim as PostgreSQL has it; `ended` and `how` are None of the one that is under way."""

    attempt: int
    worker: str
    token: str
    claimed: float
    acknowledged: bool = True
    ended: float | None = None
    how: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An outcome of the outbox."""

    n: int
    status: str
    created: float
    confirmed: float | None
    sendings: int = 1


@dataclass(slots=True)
class Job:
    """A job as PostgreSQL has it."""

    job_id: str
    tenant: str
    content_type: str
    status: str
    key: str | None = None
    attempt: int = 0
    retry_count: int = 0
    max_retries: int = 3
    outcome_count: int = 0
    content: str | None = None
    created: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the pipeline received once: also an effect, which it makes at the first one of each (job_id, n)."""

    job_id: str
    n: int
    status: str
    content: str | None


@dataclass
class EndState:
    """All of it."""

    jobs: dict[str, Job] = field(default_factory=dict)
    batches: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # (tenant, key) → its jobs
    deliveries: list[Delivery] = field(default_factory=list)
    effects: list[Delivery] = field(default_factory=list)
    mirrored: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (tenant, type, ID) in pending lists
    claimable: set[tuple[str, str, str]] = field(default_factory=set)  # the same as PostgreSQL has it
    claimed: dict[str, int] = field(default_factory=dict)  # claimed lists and how many IDs lie in them
    counted: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (tenant, type, status), counted
    kept: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # the same by the counters
    gauges: Counter[tuple[str, str]] = field(default_factory=Counter)  # (type, status) at rest, by /metrics
    resting: Counter[tuple[str, str]] = field(default_factory=Counter)  # the same as PostgreSQL counts it
    left: dict[str, int] = field(default_factory=dict)  # what should be gone, and how much of it there is
    declared: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)  # (method, path) → statuses
    ack_seconds: float = 2.0
    process_tenant: str = ""  # whose jobs are done by workers that record nothing


JOBS = """SELECT j.*, r.content FROM remote_jobs j LEFT JOIN job_results r ON r.job_id = j.id"""
CLAIMABLE = """SELECT tenant, content_type, CAST(id AS text) FROM remote_jobs
WHERE status = 'pending' AND mirrored AND available_at <= now() AND now() < timeout_at"""


def read_jobs(engine: Engine, end: EndState) -> None:
    """Read the jobs with their attempts and outcomes, the batches, and both counts."""
    shift = time.monotonic() - time.time()

    def at(moment: datetime) -> float:
        return moment.timestamp() + shift

    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        for row in connection.execute(text(JOBS)):
            job = end.jobs[str(row.id)] = Job(
                str(row.id), row.tenant, row.content_type, row.status, row.idempotency_key, row.attempt,
                row.retry_count, row.max_retries, row.outcome_count, row.content, at(row.created_at),
            )  # fmt: skip
            if row.status == "processing":
                job.attempts.append(Attempt(row.attempt, row.worker_id, row.lease_token, at(row.started_at)))
        for row in connection.execute(text("SELECT * FROM job_attempts ORDER BY job_id, attempt DESC")):
            end.jobs[str(row.job_id)].attempts.insert(0, Attempt(
                row.attempt, row.worker_id, row.lease_token, at(row.claimed_at), row.acknowledged_at is not None,
                at(row.ended_at), row.how,
            ))  # fmt: skip
        for row in connection.execute(
            text("SELECT job_id, n, kwargs ->> 'status' AS status, created_at, confirmed_at, tries FROM continuations"
                 " ORDER BY job_id, n")
        ):  # fmt: skip
            confirmed = at(row.confirmed_at) if row.confirmed_at is not None else None
            end.jobs[str(row.job_id)].told.append(Told(row.n, row.status, at(row.created_at), confirmed, row.tries))
        for row in connection.execute(text("SELECT tenant, idempotency_key, job_ids FROM job_batches")):
            end.batches[row.tenant, row.idempotency_key] = tuple(str(one) for one in row.job_ids)
    read_counts(engine, end)


def read_counts(engine: Engine, end: EndState) -> None:
    """How many jobs are where: counted, and by the counters, at one moment."""
    counted = "SELECT tenant, content_type, status, count(*) AS jobs FROM remote_jobs GROUP BY 1, 2, 3"
    kept = f"SELECT tenant, content_type, status, sum(jobs) AS jobs FROM ({counters.KEPT}) k GROUP BY 1, 2, 3"
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        for statement, into in ((counted, end.counted), (kept, end.kept)):
            into.clear()
            for row in connection.execute(text(statement)):
                if row.jobs:
                    into[row.tenant, row.content_type, row.status] = int(row.jobs)


def read_mirror(engine: Engine, client: "redis.Redis", prefix: str, end: EndState) -> None:
    """Read the pending jobs from Redis and from PostgreSQL. `client` decodes its answers."""
    end.mirrored.clear()
    end.claimed.clear()
    for key in client.scan_iter(f"{prefix}:{{*}}:*", count=1000):
        queue, _, kind = key.removeprefix(f"{prefix}:{{").partition("}:")
        tenant, _, content_type = queue.partition(":")
        if kind.startswith("pending:"):
            end.mirrored.update((tenant, content_type, str(one)) for one in client.lrange(key, 0, -1))
        elif kind.startswith("claimed:"):
            end.claimed[key] = client.llen(key)
    with engine.connect() as connection:
        end.claimable = {tuple(row) for row in connection.execute(text(CLAIMABLE))}


def read_pipeline(place: Path, end: EndState) -> None:
    """Read what the pipeline received, and what it did with it."""
    with closing(sqlite3.connect(place)) as connection:
        for table, into in (("deliveries", end.deliveries), ("effects", end.effects)):
            rows = connection.execute(f"SELECT job_id, n, status, content FROM {table} ORDER BY rowid")
            into.extend(Delivery(*row) for row in rows)


def declared(document: dict[str, Any]) -> dict[tuple[str, str], frozenset[int]]:
    """Return the statuses that the OpenAPI document gives to each operation."""
    return {
        (method.upper(), path.rstrip("/")): frozenset(
            int(status) for status in operation["responses"] if status.isdigit()
        )
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    }


def unfinished(engine: Engine) -> tuple[int, int]:
    """How many jobs have not ended, and how many outcomes are not confirmed."""
    final = ", ".join(f"'{state}'" for state in FINAL)
    with engine.connect() as connection:
        jobs = text(f"SELECT count(*) FROM remote_jobs WHERE status NOT IN ({final})")
        outcomes = text("SELECT count(*) FROM continuations WHERE next_at IS NOT NULL")
        return int(connection.execute(jobs).scalar_one()), int(connection.execute(outcomes).scalar_one())
