"""Create jobs, one or a batch: INSERT, commit, mirror."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import BridgeError, Invalid
from bridge.job_events import CREATED, REQUEST_ID
from bridge.jobs import report_changes
from bridge.jobs.batches import NEW
from bridge.jobs.callbacks import callback_for_batch
from bridge.jobs.fields import fingerprint
from bridge.jobs.idempotency import LOCK, Key, earlier, keep_batch
from bridge.jobs.looked_at import Fields, Seen, clock, looked_at
from bridge.jobs.uploaded_sources import is_uploaded, name_uploads
from bridge.queues import Entry, Queue
from bridge.runtime import Runtime, Together, one_by_one
from bridge.traces import TRACEPARENT, Span
from models.job_state import JobState

# Whether a request that is no replay may make new jobs: returns, or raises the refusal. It is asked before there is a
# row, so of simultaneous requests with one key each is counted, until bridge/admission/usage.py recounts the jobs.
Admit = Callable[[], None]

# One statement for one job and for a thousand, of one tenant or of many; the key is a single job's. The queue clock
# starts when the job becomes claimable.
INSERT = text(f"""
INSERT INTO remote_jobs (id, tenant, idempotency_key, idempotency_hash, ingestion_task_id, source_file_path,
  source_size, content_type, task_options, priority, max_retries, timeout_seconds, queue_timeout_seconds, status,
  created_at, queued_at, available_at, mirrored, timeout_at, unserved_after_seconds, unserved_at,
  batch_id, batch_outcome, traceparent, callback_url, callback_key, source_fetch, source_sha256)
SELECT n.id, n.tenant, :idempotency_key, :idempotency_hash, n.ingestion_task_id, n.source_file_path, n.source_size,
  n.content_type, CAST(n.task_options AS json), n.priority, n.max_retries, n.timeout_seconds, n.queue_timeout_seconds,
  '{JobState.PENDING}', now(), a.at, a.at, a.at <= now(), a.at + make_interval(secs => n.queue_timeout_seconds),
  n.unserved_after_seconds, a.at + make_interval(secs => n.unserved_after_seconds),
  CAST(:batch_id AS uuid), CAST(:batch_outcome AS boolean), n.traceparent, n.callback_url, n.callback_key,
  n.source_fetch, decode(n.source_sha256, 'hex')
FROM unnest(
  CAST(:ids AS uuid[]), CAST(:tenants AS text[]), CAST(:ingestion_task_ids AS text[]),
  CAST(:source_file_paths AS text[]), CAST(:source_sizes AS bigint[]), CAST(:source_sha256s AS text[]),
  CAST(:content_types AS text[]), CAST(:task_options AS text[]), CAST(:priorities AS smallint[]),
  CAST(:max_retries AS int[]), CAST(:timeouts AS int[]), CAST(:queue_timeouts AS int[]),
  CAST(:available_at AS timestamptz[]), CAST(:unserved_after AS int[]), CAST(:traceparents AS text[]),
  CAST(:callback_urls AS text[]), CAST(:callback_keys AS uuid[]), CAST(:source_fetches AS text[])
) AS n(id, tenant, ingestion_task_id, source_file_path, source_size, source_sha256, content_type, task_options,
  priority, max_retries, timeout_seconds, queue_timeout_seconds, available_at, unserved_after_seconds, traceparent,
  callback_url, callback_key, source_fetch),
  LATERAL (SELECT greatest(n.available_at, now()) AS at) a
WHERE NOT EXISTS (
  SELECT FROM job_batches WHERE tenant = n.tenant AND idempotency_key = CAST(:idempotency_key AS text)
)
ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id, created_at, mirrored
""").execution_options(prepared_as="create_jobs")
# The same under a key, which is locked by a statement of its own, in the same round trip: the snapshot of the second
# shows what was committed before. No row: the key was used.
INSERT_UNDER_KEY = text(f"{LOCK};\n{INSERT.text}").execution_options(prepared_as="create_under_key")

NOBODY = Caller()  # has no secret, so nobody is called in its name
_NO_KEY = {"idempotency_key": None, "idempotency_hash": None}
_NO_BATCH = {"batch_id": None, "batch_outcome": None}
MOST_TOGETHER_BYTES = 64 * 1024  # of task_options: a larger one is written by itself, and holds up no other


class Created(NamedTuple):
    """The answer to a create, the first one or its replay."""

    job_id: UUID
    status: JobState
    created_at: datetime
    replayed: bool
    batch_id: UUID | None = None  # None: of a batch of an earlier version, or of none

    @classmethod
    def of(cls, row: Row[Any]) -> "Created":
        return cls(row.id, JobState.PENDING, row.created_at, replayed=False)


class _New(NamedTuple):
    """A job that may be created: its source is checked."""

    tenant: str
    fields: Fields
    seen: Seen
    request_id: str | None
    span: Span


def enqueue(
    runtime: Runtime,
    tenant: str,
    created: Fields,
    *,
    idempotency_key: str | None = None,
    waited: bool = False,
    admit: Admit = lambda: None,
    asks: Caller = NOBODY,
) -> Created:
    """Create a job.

    With an `idempotency_key` that was used before, the first answer is given again, whatever became of the job and
    its file, and whatever limit was reached meanwhile: `admit` is asked about what is new only. `waited`: the request
    may have waited in a queue, so an `available_at` that has passed means now, and its key is looked up
    once, with the INSERT, unless it is refused. `asks`: the key in whose name it is done. Raises Invalid:
    the key was used with other fields, the source file is not available, `available_at` has passed, or `callback_url`
    may not be called; Unavailable: the file system does not answer; and what `admit` raises.
    """
    if idempotency_key is None:
        return _enqueue_keyless(runtime, tenant, created, waited, admit, asks)
    key = Key(tenant, idempotency_key, fingerprint(created))
    now = None
    if not waited:
        with runtime.single.connect() as connection:
            if earlier := _earlier(connection, key):
                return earlier[0]
            now = clock(connection, [created])
    # No transaction waits for a file system. The key may be used meanwhile, so it is locked and looked for again.
    try:
        admit()
        new = _looked_at_one(runtime, tenant, created, now, asks)
    except BridgeError:
        if waited:
            with runtime.engine.begin() as connection:
                if earlier := _earlier(connection, key):
                    return earlier[0]
        raise
    values = {**key.params(), **_NO_BATCH, **_columns(runtime, [new], [uuid7()])}
    if is_uploaded(created["source_file_path"]):
        with runtime.engine.begin() as connection:
            rows = connection.execute(INSERT_UNDER_KEY, values).all()
            if rows:
                name_uploads(connection, tenant, [rows[0].id], [created])
            reach("create.before_commit", rows)
    else:
        rows = runtime.driver.execute(INSERT_UNDER_KEY, values)
    if not rows:
        with runtime.single.connect() as connection:
            return _earlier(connection, key)[0]
    _tell_of(runtime, [new], rows)
    return Created.of(rows[0])


def _enqueue_keyless(
    runtime: Runtime, tenant: str, created: Fields, waited: bool, admit: Admit, asks: Caller
) -> Created:
    """Create a job without a key: nothing is looked up, so one statement creates it, with others of the same moment."""
    now = None
    if created["available_at"] is not None and not waited:
        with runtime.engine.connect() as connection:
            now = clock(connection, [created])
    admit()
    new = _looked_at_one(runtime, tenant, created, now, asks)
    if is_uploaded(created["source_file_path"]) or len(orjson.dumps(created["task_options"])) > MOST_TOGETHER_BYTES:
        return Created.of(one_by_one(CREATE, runtime, new))
    return Created.of(runtime.batches(CREATE, runtime, new))


def _insert(runtime: Runtime, new: Sequence[_New]) -> Sequence[Row[Any]]:
    """Insert jobs without a key in one statement that commits itself; return rows in their order, that of their IDs."""
    ids = sorted(uuid7() for _ in new)
    values = {**_NO_KEY, **_NO_BATCH, **_columns(runtime, new, ids)}
    if is_uploaded(new[0].fields["source_file_path"]):  # then it is alone, and a transaction
        with runtime.engine.begin() as connection:
            rows = connection.execute(INSERT, values).all()
            name_uploads(connection, new[0].tenant, ids, [one.fields for one in new])
        return rows
    return sorted(runtime.driver.execute(INSERT, values), key=lambda row: row.id)


def _tell_of(runtime: Runtime, new: Sequence[_New], rows: Sequence[Row[Any]]) -> None:
    reach("create.after_commit")
    _follow(runtime, new, rows)
    reach("create.after_push")


CREATE: Together[_New, Row[Any]] = Together(_insert, _tell_of)


def enqueue_batch(
    runtime: Runtime,
    tenant: str,
    created: Sequence[Fields],
    *,
    idempotency_key: str | None = None,
    outcome: bool = False,
    callback_url: str | None = None,
    admit: Admit = lambda: None,
    asks: Caller = NOBODY,
) -> list[Created]:
    """Create all of these jobs in one transaction, or none; the answers are in their order, with the batch's ID.

    `outcome`: whether its pipeline, and the receiver at `callback_url`, are told, once, when all of them have ended.
    The `idempotency_key` is the batch's: its replay gives the same list, and `admit` is not asked. Raises Invalid as
    `enqueue` does, its fields named by their place, such as `jobs.3.source_file_path`; and what `admit` raises.
    """
    hashed = None if idempotency_key is None else fingerprint(_asked(created, outcome, callback_url))
    key = Key(tenant, idempotency_key, hashed)
    ids = sorted(uuid7() for _ in created)  # jobs of one moment are in line by their IDs
    with runtime.engine.begin() as connection:
        if earlier := _earlier(connection, key):
            return earlier
        now = clock(connection, created)
    admit()
    whole = callback_for_batch(runtime.settings, asks, callback_url, outcome=outcome)
    refused, seen = looked_at(runtime, tenant, created, now, asks)
    if refused:
        raise Invalid({f"jobs.{n}.{field}": why for n, its in refused.items() for field, why in its.items()})
    with runtime.engine.begin() as connection:
        if earlier := _earlier(connection, key):
            return earlier
        batch_id = uuid7()
        if key.key is not None and not keep_batch(connection, key, [*map(str, ids)], batch_id):
            return _earlier(connection, key)
        new = [_new(runtime, tenant, *one) for one in zip(created, seen, strict=True)]
        its = {"batch_id": str(batch_id), "batch_outcome": outcome or None}
        told = {"outcome": outcome, "callback_url": whole.url, "callback_key": whole.key_id}
        connection.execute(NEW, {"id": batch_id, "tenant": tenant, "jobs": len(ids), **told})
        by_id = {row.id: row for row in connection.execute(INSERT, {**_NO_KEY, **its, **_columns(runtime, new, ids)})}
        name_uploads(connection, tenant, ids, created)
        reach("batch.before_commit")
    reach("batch.after_commit")
    rows = [by_id[job_id] for job_id in ids]
    _follow(runtime, new, rows)
    return [Created.of(row)._replace(batch_id=batch_id) for row in rows]


def _asked(created: Sequence[Fields], outcome: bool, callback_url: str | None) -> dict[str, Any]:
    """Return what a batch's key stands for; without an outcome it is the same as before batches had outcomes."""
    asked = {"jobs": created, "outcome": True} if outcome else {"jobs": created}
    return asked if callback_url is None else {**asked, "callback_url": callback_url}


def _earlier(connection: Connection, key: Key) -> list[Created]:
    """Return the first answer under the key; an empty list if the key is new. Raises Invalid (mismatch)."""
    row = earlier(connection, key)
    if row is None:
        return []
    return [Created(one, JobState.PENDING, row.created_at, True, row.batch_id) for one in row.job_ids]


def _looked_at_one(runtime: Runtime, tenant: str, created: Fields, now: datetime | None, asks: Caller) -> _New:
    """Check one job's source, time and callback. Raises Invalid, Unavailable."""
    refused, seen = looked_at(runtime, tenant, [created], now, asks)
    if refused:
        raise Invalid(refused[0])
    return _new(runtime, tenant, created, seen[0])


def _new(runtime: Runtime, tenant: str, created: Fields, seen: Seen) -> _New:
    span = runtime.traces.begin(CREATED, TRACEPARENT.get())
    return _New(tenant, created, seen, REQUEST_ID.get(), span)


def _columns(runtime: Runtime, new: Sequence[_New], ids: Sequence[UUID]) -> dict[str, Any]:
    settings = runtime.settings
    created = [one.fields for one in new]
    return {
        "ids": [*map(str, ids)],
        "tenants": [one.tenant for one in new],
        "ingestion_task_ids": [fields["ingestion_task_id"] for fields in created],
        "source_file_paths": [fields["source_file_path"] for fields in created],
        "source_sizes": [one.seen.size for one in new],
        "source_sha256s": [fields["source_sha256"] for fields in created],
        "content_types": [fields["content_type"] for fields in created],
        "task_options": [orjson.dumps(fields["task_options"]).decode() for fields in created],
        "priorities": [fields["priority"].rank for fields in created],
        "max_retries": [fields["max_retries"] for fields in created],
        "timeouts": [fields["timeout_seconds"] or settings.deadline_for(fields["content_type"]) for fields in created],
        "queue_timeouts": [fields["queue_timeout_seconds"] or settings.queue_timeout_seconds for fields in created],
        "available_at": [fields["available_at"] for fields in created],
        "unserved_after": [fields["unserved_after_seconds"] for fields in created],
        "traceparents": [one.span.traceparent for one in new],
        "callback_urls": [one.seen.callback.url for one in new],
        "callback_keys": [None if (key_id := one.seen.callback.key_id) is None else str(key_id) for one in new],
        "source_fetches": [one.seen.fetch for one in new],
    }


def _follow(runtime: Runtime, new: Sequence[_New], rows: Sequence[Row[Any]]) -> None:
    for one, row in zip(new, rows, strict=True):
        report_changes.created(runtime, row.id, one.tenant, one.fields["content_type"], one.request_id, one.span)
    runtime.mirror.push(
        Entry(Queue(one.tenant, one.fields["content_type"]), one.fields["priority"], str(row.id))
        for one, row in zip(new, rows, strict=True)
        if row.mirrored
    )
