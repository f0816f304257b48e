"""The core's verbs as a test wants them, and what becomes of a job as PostgreSQL has it."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from bridge.caller import Caller
from bridge.errors import BridgeError
from bridge.job_events import REQUEST_ID
from bridge.jobs import report_changes
from bridge.jobs.cancel import cancel, restart
from bridge.jobs.claim import Claimant, Claimed, Fates, claim, next_in_line
from bridge.jobs.enqueue import enqueue, enqueue_batch
from bridge.jobs.expire import expire
from bridge.jobs.extend import Alive, extend
from bridge.jobs.fields import CreateFields
from bridge.jobs.purge import purge
from bridge.jobs.release import release
from bridge.jobs.submit_result import submit
from bridge.queues import RANKS, Entry, Queue
from bridge.runtime import Runtime
from tests.support.waiting import wait_until

KEY = Caller(UUID(int=1))
OTHER_KEY = Caller(UUID(int=2))
_numbers = itertools.count(1)

# What the three clocks and the backoff are read from; `age` makes a job so many seconds older.
_CLOCKS = (
    "created_at", "queued_at", "available_at", "timeout_at", "started_at", "ack_by", "acknowledged_at",
    "lease_expires_at", "attempt_ended_at", "completed_at", "unserved_at",
)  # fmt: skip

_OUTCOME_CLOCKS = ("created_at", "next_at", "sent_at", "confirmed_at")
_ENDED_CLOCKS = ("claimed_at", "acknowledged_at", "ended_at")


class Answer(NamedTuple):
    """What a worker is told of its result, the first time and again."""

    status: str
    ingestion_continued: bool


class Core:
    """A runtime, and workers that use it; a worker is (key, worker_id)."""

    def __init__(self, runtime: Runtime, tenant: str = "default") -> None:
        self.runtime = runtime
        self.tenant = tenant
        self.engine = runtime.engine
        self._alone = runtime.engine.execution_options(isolation_level="AUTOCOMMIT", test=True)
        self.source = Path(runtime.settings.source_roots[0]) / "source.bin"
        self.source.write_bytes(b"source")

    def fields(self, content_type: str = "audio", **fields: Any) -> dict[str, Any]:
        """Return what creates a job, validated."""
        given = {
            "source_file_path": str(self.source),
            "content_type": content_type,
            "ingestion_task_id": f"task-{next(_numbers)}",
            **fields,
        }
        loaded: dict[str, Any] = CreateFields().load(given)
        return loaded

    def create(self, content_type: str = "audio", *, idempotency_key: str | None = None, **fields: Any) -> str:
        given = self.fields(content_type, **fields)
        return str(enqueue(self.runtime, self.tenant, given, idempotency_key=idempotency_key).job_id)

    def create_batch(self, jobs: list[dict[str, Any]], idempotency_key: str | None = None, **how: Any) -> list[str]:
        created = enqueue_batch(self.runtime, self.tenant, jobs, idempotency_key=idempotency_key, **how)
        return [str(job.job_id) for job in created]

    def offer(
        self,
        job_ids: list[str],
        worker: str = "w1",
        *,
        key: Caller = KEY,
        lease: int | None = 60,
        claim_id: str | None = None,
    ) -> Fates:
        """Offer these jobs to that worker, at once."""
        who = Claimant(key.key_id, worker, lease, claim_id, self.tenant)
        with self.engine.begin() as connection:
            fates = claim(connection, [(job_id, who) for job_id in job_ids], self.runtime.settings.ack_seconds)
        for job in fates.claimed.values():
            report_changes.claimed(self.runtime, who, job, REQUEST_ID.get())
        self.runtime.mirror.drop(
            Entry(Queue(self.tenant, job.content_type), rank, str(job.job_id))  # its age may have raised it
            for job in fates.claimed.values()
            for rank in RANKS
        )
        return fates

    def claim(self, job_id: str, worker: str = "w1", *, acknowledge: bool = False, **said: Any) -> Claimed | None:
        """Claim this job for that worker; return None if it is not free."""
        job = self.offer([job_id], worker, **said).claimed.get(0)
        if job is not None and acknowledge:
            self.heartbeat(job, key=said.get("key", KEY))
        return job

    def held(self, worker: str = "w1", *, acknowledge: bool = True, returns: int = 0, **fields: Any) -> Claimed:
        """Return a new job in a worker's hands, acknowledged unless said otherwise, that came back so often."""
        job = self.claim(self.create(**fields), worker, acknowledge=acknowledge)
        assert job is not None
        if returns:
            self.sql("UPDATE remote_jobs SET return_count = :n WHERE id = :id", n=returns, id=str(job.job_id))
        return job

    def lost(self, **fields: Any) -> Claimed:
        """Return a claim that its clock has ended; the job waits, and its late result counts."""
        job = self.held(**fields)
        self.expire_after(job.job_id)
        assert self.status(job.job_id) == "pending"
        return job

    def finished(self, **said: Any) -> str:
        """Return the ID of a new job that has ended with this result."""
        job = self.held()
        self.result(job, **said)
        return str(job.job_id)

    def next(self, content_type: str = "audio", count: int = 10) -> list[str]:
        """Return the IDs that PostgreSQL would offer next, in order."""
        return self.lines([content_type], count)[0]

    def lines(self, content_types: Iterable[str], count: int = 10) -> list[list[str]]:
        """Return the same of several content types."""
        queues = [Queue(self.tenant, content_type) for content_type in content_types]
        with self.engine.begin() as connection:
            found = next_in_line(connection, dict.fromkeys(queues, count)).found
        return [[entry.job_id for entry in found[queue]] for queue in queues]

    def heartbeat(self, job: Claimed, *, key: Caller = KEY, token: str | None = "", **said: Any) -> Alive:
        return extend(self.runtime, self.of(key), str(job.job_id), token=_token(job, token), **said)

    def result(self, job: Claimed, *, key: Caller = KEY, token: str | None = "", **said: Any) -> "Answer":
        body = {"success": True, "content": "text", **said}
        accepted = submit(self.runtime, self.of(key), str(job.job_id), body, _token(job, token))
        return Answer(accepted.status, accepted.ingestion_continued)

    def release(self, job: Claimed, *, key: Caller = KEY, token: str | None = "") -> str:
        return release(self.runtime, self.of(key), str(job.job_id), _token(job, token))

    def cancel(self, job_id: Any) -> str:
        return cancel(self.runtime, self.of(KEY), str(job_id))

    def restart(self, job_id: Any) -> str:
        return restart(self.runtime, self.of(KEY), str(job_id))

    def of(self, key: Caller) -> Caller:
        """Return the key as one of this core's tenant, unless the test names another."""
        return key._replace(tenant=self.tenant) if key.tenant == KEY.tenant else key

    def expire(self) -> int:
        return expire(self.runtime)

    def expire_after(self, job_id: Any, seconds: float = 61) -> int:
        """Let so many seconds pass for this job, usually just more than a lease, and then sweep."""
        self.age(job_id, seconds)
        return self.expire()

    def purge_after(self, job_id: Any, days: int = 40) -> int:
        """Let so many days pass for this job, whose outcomes have been handed over, and then purge."""
        self.sql("UPDATE continuations SET next_at = NULL, sent_at = now() WHERE job_id = :id", id=str(job_id))
        self.age(job_id, days * 86400)
        return purge(self.runtime)

    def age(self, job_id: Any, seconds: float) -> None:
        """Let so many seconds pass for this job."""
        back, ended, told, batch = (
            ", ".join(f"{clock} = {clock} - make_interval(secs => :seconds)" for clock in clocks)
            for clocks in (_CLOCKS, _ENDED_CLOCKS, _OUTCOME_CLOCKS, ["created_at"])
        )
        self.sql(
            f"WITH ended AS (UPDATE job_attempts SET {ended} WHERE job_id = :id),"
            f" told AS (UPDATE continuations SET {told} WHERE job_id = :id),"
            f" batch AS (UPDATE job_batches SET {batch} WHERE CAST(:id AS uuid) = ANY(job_ids))"
            f" UPDATE remote_jobs SET {back} WHERE id = :id",
            seconds=seconds,
            id=str(job_id),
        )

    def row(self, job_id: Any) -> Row[Any]:
        return self.sql("SELECT * FROM remote_jobs WHERE id = :id", id=str(job_id))[0]

    def status(self, job_id: Any) -> str:
        return str(self.row(job_id).status)

    def attempts(self, job_id: Any) -> list[Row[Any]]:
        return self.sql("SELECT * FROM job_attempts WHERE job_id = :id ORDER BY attempt", id=str(job_id))

    def hows(self, job_id: Any) -> list[str]:
        """How the job's attempts ended, in order."""
        return [attempt.how for attempt in self.attempts(job_id)]

    def outcomes(self, job_id: Any) -> list[Row[Any]]:
        return self.sql("SELECT * FROM continuations WHERE job_id = :id ORDER BY n", id=str(job_id))

    def sql(self, statement: str, **parameters: Any) -> list[Row[Any]]:
        with self._alone.connect() as connection:
            done = connection.execute(text(statement), parameters)
            return list(done) if done.returns_rows else []

    @contextmanager
    def locked(self, job_id: Any, verb: Callable[[], Any]) -> Iterator[tuple[Connection, Future[Any]]]:
        """Start a verb that has to wait for this job's row; what the block changes on the connection comes first."""
        with ThreadPoolExecutor(1) as pool, self.engine.begin() as connection:
            connection.execute(text("SELECT 1 FROM remote_jobs WHERE id = :id FOR UPDATE"), {"id": str(job_id)})
            done = pool.submit(outcome_of, verb)
            me = connection.scalar(text("SELECT pg_backend_pid()"))
            waits = "SELECT 1 FROM pg_stat_activity WHERE :me = ANY(pg_blocking_pids(pid))"
            wait_until(lambda: done.done() or self.sql(waits, me=me), "the verb to wait for the row")
            assert not done.done(), f"it did not wait for the row: {done.result()}"
            yield connection, done


def _token(job: Claimed, token: str | None) -> str | None:
    """Return the claim's own token, unless the test names another (or none)."""
    return job.lease_token if token == "" else token


def outcome_of(verb: Callable[..., Any]) -> Any:
    """Return what a verb returns, or the code of its refusal."""
    try:
        return verb()
    except BridgeError as refusal:
        return refusal.code
