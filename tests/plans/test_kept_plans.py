"""Plans that a connection keeps from a moment with no job, or a few, serve it when there are a hundred thousand."""

from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import text

from bridge.db import make_engine
from bridge.jobs.claim import Claimant, claim, replay
from bridge.settings import load_settings
from tests.plans.test_plans_stale import load
from tests.support.big_table import BigTable
from tests.support.core import KEY, Core

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]

READ = """
SELECT CAST(sum(seq_tup_read) + coalesce((SELECT sum(idx_tup_read) FROM pg_stat_user_indexes i
  WHERE i.relname IN ('remote_jobs', 'job_batches')), 0) AS bigint)
FROM pg_stat_user_tables WHERE relname IN ('remote_jobs', 'job_batches')
"""


@pytest.fixture(params=["never a job", "jobs that have gone", "a few jobs"])
def table(core, request):
    """Yield a database whose statistics are from this moment for ever, and a runtime of a single connection."""
    database = core.engine.url.render_as_string(hide_password=False)
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": database}), pool_size=1)
    mine = BigTable(engine, replace(core.runtime, engine=engine))
    mine.sql("ALTER TABLE remote_jobs SET (autovacuum_enabled = false)")
    if request.param != "never a job":
        load(mine, "completed", 60, 40_000_000)
    if request.param == "jobs that have gone":  # statistics of pages without a row, which is another thing than none
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text("DELETE FROM remote_jobs"))
    mine.sql("ANALYZE remote_jobs, job_batches")
    yield mine
    mine.sql("ALTER TABLE remote_jobs RESET (autovacuum_enabled)")
    engine.dispose()


def rows_read(table: BigTable) -> int:
    table.sql("SELECT pg_stat_force_next_flush()")
    table.sql("SELECT pg_stat_clear_snapshot()")
    return int(table.sql(READ)[0][0])


def lives(core: Core, count: int, claim_id: str | None = None) -> None:
    """Have jobs created, under a key too, claimed and completed; the connection keeps a plan from the sixth on."""
    for _ in range(count):
        who = Claimant(KEY.key_id, "w1", 60, claim_id, core.tenant)
        [job] = claim(core.runtime.driver, [(core.create(), who)], 60).claimed.values()
        assert len(replay(core.runtime.driver, [who])) == (claim_id is not None)
        core.result(job)
        core.create(idempotency_key=str(uuid4()))


@pytest.mark.parametrize("claim_id", [None, "once"])
def test_a_plan_of_then_reads_the_jobs_that_are_named(table, claim_id):
    core = Core(table.runtime)
    lives(core, 10, claim_id)
    load(table, "completed", 20_000, 0)
    load(table, "pending", 100_000, 10_000_000)
    load(table, "processing", 5_000, 20_000_000)
    before = rows_read(table)
    lives(core, 5, claim_id)
    assert rows_read(table) - before < 5 * 200
    kept = table.sql("SELECT name, generic_plans FROM pg_prepared_statements")
    named = {one.name.rpartition("_")[0]: one.generic_plans for one in kept}
    assert named.keys() == {"create_jobs", "create_under_key", "claim_jobs", "complete_jobs", "replay_claims"}
    assert min(named.values()) >= 5


def test_the_table_can_be_read_whole_by_others(table):
    lives(Core(table.runtime), 1)
    with table.engine.connect() as connection:
        assert connection.scalar(text("SHOW enable_seqscan")) == "on"
