"""A burst after a quiet night: the planner's statistics are from a moment when no job waited and none was in hand.

What names jobs by their IDs reads these jobs and no others, whatever the statistics say. The statements are listed
from the code: one that is new is either run here, or said to look for jobs by their place.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Executable, text

import bridge
from bridge.admission import usage
from bridge.db import make_engine
from bridge.insight import explain, gauges, history, overview, scaling
from bridge.jobs import batch_lists, claim, expire_without_beat, job_log, purge, raise_priority, read
from bridge.jobs.bulk import steer
from bridge.jobs.cancel import restart
from bridge.jobs.claim import Claimant, default_wait, replay
from bridge.jobs.documents import Document, Unread, as_json, head
from bridge.jobs.expire import expire
from bridge.jobs.release import evict, take_from_key
from bridge.mirror import reconcile
from bridge.mirror.lists import Mirror
from bridge.mirror.release_due import release_due
from bridge.outbox import outcomes, webhooks
from bridge.queues import Entry, Queue
from bridge.runtime import Runtime
from bridge.settings import load_settings
from bridge.workers import quarantine
from models.job_state import Asked, Priority
from tests.plans.test_plans_verbs import done
from tests.support.big_table import TENANT, BigTable, Plan
from tests.support.core import KEY, OTHER_KEY, Core
from tests.support.of_an_attempt import Work

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]

FINISHED, PENDING, PROCESSING = 20_000, 100_000, 5_000
REASONS_READ = 2 * 2000  # the newest attempts that ended badly, of 5000, and the job of each

# They look for jobs by a queue, a clock, a list's filter or a key, with an index made for it; the rest name IDs.
BY_PLACE = {
    "bridge.jobs.claim.NEXT", "bridge.jobs.claim.LOADED", "bridge.jobs.claim.REPLAY", "bridge.jobs.claim.HOLDS",
    "bridge.insight.counters.CHECK", "bridge.insight.durations.REFRESH",
    "bridge.jobs.enqueue.INSERT", "bridge.jobs.enqueue.INSERT_UNDER_KEY",
    "bridge.jobs.idempotency.EARLIER", "bridge.jobs.idempotency.KEEP_BATCH",
    "bridge.insight.explain.AHEAD",
    "bridge.insight.history.ENDED", "bridge.insight.overview.REASONS", "bridge.insight.scaling.NOT_YET",
    "bridge.jobs.raise_priority.PROMOTE",
    "bridge.jobs.unserved.ASKED", "bridge.jobs.unserved.TELL", "bridge.jobs.unserved.FORGET",
    "bridge.jobs.batch_lists.NEWEST", "bridge.blobs.collect.LET_GO",
    "bridge.jobs.batches.BY_STATUS", "bridge.jobs.batches.END", "bridge.jobs.purge.GONE_BATCHES",
    "bridge.insight.gauges.OLDEST", "bridge.insight.gauges.BACKLOG", "bridge.insight.gauges.NOT_MIRRORED",
    "bridge.jobs.expire_without_beat.OVERDUE", "bridge.workers.roster.HELD",
    "bridge.mirror.reconcile.QUEUES", "bridge.mirror.reconcile.OLDEST", "bridge.mirror.reconcile.OLDER",
    "bridge.admission.usage.HELD", "bridge.admission.usage.IN_HAND", "bridge.admission.usage.PENDING",
    "bridge.admission.usage.TYPES",
}  # fmt: skip

# No statements, but parts of some, under each name that a module has for them.
PARTS = {
    "bridge.jobs.bulk._these", "bridge.jobs.complete._HELD",
    "bridge.jobs.submit_result._ALIVE[acknowledged_at]",
    "bridge.jobs.bulk.PUT_BACK[priority]", "bridge.jobs.cancel.PUT_BACK[priority]",
    "bridge.jobs.expire.RETRIED[priority]", "bridge.jobs.release.RETRIED[priority]",
    "bridge.jobs.submit_result.RETRIED[priority]", "bridge.jobs.transition.RETRIED[priority]",
}  # fmt: skip

JOBS = """
INSERT INTO remote_jobs (id, tenant, ingestion_task_id, source_file_path, content_type, task_options, priority, status,
  created_at, queued_at, available_at, mirrored, timeout_at, timeout_seconds, queue_timeout_seconds, max_retries,
  outcome_count, attempt, worker_id, key_id, lease_token, lease_seconds, started_at, acknowledged_at, ack_by,
  lease_expires_at, attempt_end, attempt_ended_at, completed_at, result_data)
SELECT CAST(lpad(to_hex(:from + i), 12, '0') || md5(CAST(i AS text)) AS varchar(32))::uuid, :tenant, 'task-' || i,
  '/files/source', 'audio', '{}', 1, :status, at, at, at, :status = 'pending', at + interval '2 days', 3600, 86400, 3,
  CASE WHEN :status = 'completed' THEN 1 ELSE 0 END, attempt, CASE WHEN attempt > 0 THEN 'w-' || i % 50 END,
  CASE WHEN attempt > 0 THEN CAST(:key AS uuid) END, CASE WHEN attempt > 0 THEN 'token' END, 60,
  CASE WHEN attempt > 0 THEN at END, CASE WHEN attempt > 0 THEN at END,
  CASE WHEN :status = 'processing' THEN at + interval '1 day' END,
  CASE WHEN :status = 'processing' THEN at + interval '1 day' END,
  CASE WHEN :status = 'completed' THEN 'completed' END, CASE WHEN :status = 'completed' THEN at END,
  CASE WHEN :status = 'completed' THEN at END, CASE WHEN :status = 'completed' THEN CAST('{}' AS json) END
FROM (
  SELECT i, now() - make_interval(secs => 3600 - i / 100.0) AS at, CASE WHEN :status = 'pending' THEN 0 ELSE 1 END
    AS attempt FROM generate_series(1, :count) AS i
) numbered
"""

# How the attempt before their last one ended.
ENDED = """
INSERT INTO job_attempts (job_id, attempt, worker_id, key_id, lease_token, claimed_at, ended_at, how)
SELECT id, attempt - 1, worker_id, key_id, 'token', started_at, now() - interval '10 minutes', :how
FROM remote_jobs WHERE status = :status
"""


@pytest.fixture(scope="module")
def stale(new_database, servers, tmp_path_factory) -> Iterator[BigTable]:
    url = new_database()
    settings = load_settings(
        {
            "BRIDGE_DATABASE_URL": url,
            "BRIDGE_REDIS_URL": servers.redis_url,
            "BRIDGE_SOURCE_ROOTS": str(tmp_path_factory.mktemp("stale-files")),
            "BRIDGE_CONTINUATION_TASK": "pipeline.receive",
        }
    )
    engine = make_engine(settings)
    runtime = Runtime(settings, engine, Mirror(servers.redis_url, "stale", "p"), lambda job_ids: None)
    mine = BigTable(engine, runtime)
    for table in ("remote_jobs", "job_attempts", "continuations"):
        mine.sql(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    load(mine, "completed", FINISHED, 0)
    mine.sql(ENDED, status="completed", how="completed")
    mine.sql("ANALYZE")
    load(mine, "pending", PENDING, 10_000_000)
    load(mine, "processing", PROCESSING, 20_000_000)
    mine.sql(ENDED, status="processing", how="failed")
    yield mine
    engine.dispose()


def load(table: BigTable, status: str, count: int, first: int) -> None:
    with table.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        values = {"status": status, "count": count, "from": first, "tenant": TENANT, "key": str(OTHER_KEY.key_id)}
        connection.execute(text(JOBS.replace("::uuid", "\\:\\:uuid")), values)


def of_the_code() -> Iterator[tuple[str, Any]]:
    """Every statement that a module of the bridge has made, by its name."""
    for module in pkgutil.walk_packages(bridge.__path__, "bridge."):
        if module.name.startswith(("bridge.cli", "bridge.embedded", "bridge.__main__")):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            items: Iterable[tuple[Any, Any]] = ()
            if isinstance(value, Executable):
                yield f"{module.name}.{name}", value
            elif isinstance(value, Mapping):
                items = value.items()
            elif isinstance(value, list | tuple):
                items = enumerate(part for item in value for part in (item if isinstance(item, tuple) else (item,)))
            yield from ((f"{module.name}.{name}[{key}]", one) for key, one in items if isinstance(one, Executable))


def of_each(plans: list[Plan]) -> dict[str, list[Plan]]:
    """Return the plans of each statement."""
    found: dict[str, list[Plan]] = {}
    for plan in plans:
        found.setdefault(plan.statement, []).append(plan)
    return found


def compiled(table: BigTable, statement: Any) -> str:
    return str(statement.compile(dialect=table.engine.dialect))


def work(core: Core) -> None:
    """Everything that happens to a job, to several."""
    runtime = core.runtime
    done = core.held(worker="w1")
    job_log.append(runtime, core.of(KEY), str(done.job_id), ["a line"], done.lease_token)
    Work(core).checkpoints(done)
    core.result(done)
    core.result(done)  # again
    changed = core.held(worker="w1")
    with core.locked(changed.job_id, lambda: core.result(changed)):
        pass  # it is looked at, and completed by itself
    read.result(runtime, TENANT, str(done.job_id))
    read.find(runtime, TENANT, str(done.job_id), read.WHOLE)
    for document in Document:
        assert list(as_json(runtime, Unread(done.job_id, document), nullcontext))
        assert head(runtime, done.job_id, document, 100)
    again = core.held(worker="w2", max_retries=1)
    core.result(again, success=False, error_message="retried")
    core.age(again.job_id, 600)
    release_due(runtime.engine, runtime.mirror)
    failed = core.claim(str(again.job_id), "w2", acknowledge=True)
    assert failed is not None
    core.result(failed, success=False, error_message="failed")
    restart(runtime, KEY, str(again.job_id))
    core.cancel(again.job_id)
    results: tuple[dict[str, Any], ...] = ({}, {"success": False}, {"success": False, "retryable": False})
    for said in results:
        late = core.held(worker="w3")
        core.age(late.job_id, 200)
        expire(runtime)
        core.result(late, **said)
    core.result(core.held(worker="w3"), success=False, retryable=False)
    unseen = core.held(worker="w4", acknowledge=False)
    for _ in range(5):
        core.age(unseen.job_id, 3600)
        expire(runtime)
        core.claim(str(unseen.job_id), "w4")
    for max_retries in (0, 1):
        released = core.held(worker="r0", max_retries=max_retries)
        for n in range(1, 6):
            core.release(released)
            released = core.claim(str(released.job_id), f"r{n}") or released
    core.heartbeat(core.held(worker="w9"), progress=0.5)
    core.claim(core.create(), "w10", claim_id="c1")
    taken = core.held(worker="w11")
    assert taken
    assert evict(runtime, TENANT, ["w11"], [KEY.key_id]).total() == 1
    list(take_from_key(runtime.engine, KEY.key_id))
    created = core.create("video")
    steer(runtime, KEY, Asked.CANCEL, {"content_type": "video"})
    steer(runtime, KEY, Asked.RETRY, {"content_type": "video"})
    runtime.mirror.push([Entry(Queue(TENANT, "web"), Priority.NORMAL, created)])  # it is none of that queue
    reconcile.reconcile(runtime.engine, runtime.mirror)
    outcomes.deliver(runtime, lambda *_: None, ())
    with runtime.engine.connect() as connection:
        connection.execute(webhooks.READ, {"job_id": done.job_id, "n": 1, "inline": 100})
    purge.purge(runtime)
    quarantine.watch(runtime)


def look_around(core: Core) -> None:
    """Everything that looks for jobs by their place."""
    runtime = core.runtime
    who = Claimant(OTHER_KEY.key_id, "w-7", 60, "c2", TENANT)
    core.lines(["audio", "video"], 10)
    queues = [Queue(TENANT, "audio"), Queue(TENANT, "nothing")]
    waiting = core.create(idempotency_key="its own")
    with runtime.engine.connect() as connection:
        assert claim.loaded(connection, queues) == {queues[0]}
        replay(connection, [who])
        default_wait(connection, who)
        for statement in (expire_without_beat.OVERDUE, gauges.BACKLOG, gauges.NOT_MIRRORED, reconcile.QUEUES):
            connection.execute(statement)
        for statement in (scaling.NOT_YET, overview.REASONS):
            connection.execute(statement, {"tenant": TENANT})
        connection.execute(batch_lists.NEWEST, {"tenant": TENANT, "created_at": None, "id": None, "limit": 21})
        connection.execute(gauges.OLDEST, {"tenants": [TENANT], "content_types": ["audio"]})
        connection.execute(usage.TYPES, {"tenant": TENANT, "most": 100})
        place = {"tenant": TENANT, "content_type": "audio", "priority": 1, "count": 10}
        connection.execute(reconcile.OLDEST, place)
        connection.execute(reconcile.OLDER, {**place, "queued_at": None, "id": None})
        connection.execute(raise_priority.PROMOTE, {**place, "seconds": 60, "batch": 10})
        since = connection.scalar(text("SELECT now() - interval '3500 seconds'"))  # 100 jobs a second ended then
        ended = connection.execute(history.ENDED, {"step": 15, "since": since, "until": since + timedelta(seconds=1)})
        assert sum(row.completed for row in ended) == 100
        row = connection.execute(text("SELECT * FROM remote_jobs WHERE id = :id"), {"id": waiting}).one()
        connection.execute(explain.AHEAD, {**row._mapping, "priority": 0})


def test_what_names_jobs_by_their_ids_reads_these_jobs(stale):
    core = Core(stale.runtime)
    plans = of_each(stale.plans(lambda: work(core)))
    known = {name: compiled(stale, statement) for name, statement in of_the_code()}
    by_id = {name: sql for name, sql in known.items() if "remote_jobs" in sql and name not in BY_PLACE | PARTS}
    assert known.keys() >= BY_PLACE | PARTS
    assert len(by_id) > 25
    assert not [name for name, sql in by_id.items() if sql not in plans], "run them in `work`, or list them by place"
    for name, sql in by_id.items():
        for plan in plans[sql]:
            in_hand = PROCESSING if any(one in name for one in ("TAKE_FROM_DEAD", "SWEEPS[0]")) else 0
            assert plan.rows_read <= 200 + in_hand, (name, plan.rows_read, plan.scans)
            assert "remote_jobs" not in plan.scans, name


def test_what_looks_for_jobs_by_their_place_uses_the_index_made_for_it(stale):
    core = Core(stale.runtime)
    for plan in stale.plans(lambda: look_around(core)):
        bound = REASONS_READ if plan.statement == compiled(stale, overview.REASONS) else 200
        assert plan.rows_read <= bound, (plan.statement, plan.scans)
        assert "remote_jobs" not in plan.scans, plan.statement


@pytest.mark.parametrize("known", [False, True])
def test_the_jobs_that_ended_badly_are_looked_up_one_by_one(stale, known):
    """Also once it is known of the attempts how many ended so, and of the jobs not yet how many there are."""
    if known:
        stale.sql("ANALYZE job_attempts")
    with stale.engine.connect() as connection:
        found, [plan] = done(stale, lambda: connection.execute(overview.REASONS, {"tenant": TENANT}).all())
    assert found
    assert plan.rows_read <= REASONS_READ
    assert plan.scans == {"job_attempts_bad", "remote_jobs_pkey"}
