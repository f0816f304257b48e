"""What is shown is read by indexes: rows read grow with the answer, not with the table (100 000 pending, a million
finished)."""

import pytest
from sqlalchemy import text

from bridge.insight import counters, durations, gauges
from bridge.insight.durations import estimated_completion
from bridge.insight.explain import explain
from bridge.insight.statistics import statistics
from bridge.jobs.expire import SWEEPS, expire
from bridge.jobs.purge import purge
from bridge.jobs.read import STANDING, find
from bridge.mirror.reconcile import reconcile
from bridge.mirror.release_due import release_due
from bridge.outbox.outcomes import deliver
from bridge.workers.quarantine import watch
from bridge.workers.registry import WorkerRegistry
from bridge.workers.roster import roster_of
from tests.plans.test_plans_verbs import done

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]

ENDED = """
INSERT INTO job_attempts (job_id, attempt, worker_id, key_id, lease_token, claimed_at, ended_at, how)
SELECT id, 1, worker_id, key_id, 'x', started_at, completed_at,
  CASE WHEN status = 'completed' THEN 'completed' WHEN status = 'failed' THEN 'failed' ELSE 'lease_expired' END
FROM remote_jobs WHERE completed_at IS NOT NULL AND worker_id IS NOT NULL AND get_byte(uuid_send(id), 15) % 4 = 0
ON CONFLICT DO NOTHING -- another file of tests may have used the same table
"""


@pytest.fixture(scope="module")
def big(big_table):
    """Return the big table with its counters, its medians and an ended attempt of every fourth finished job."""
    with big_table.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(ENDED))
        connection.execute(text("ANALYZE job_attempts"))
    assert counters.check(big_table.runtime) == 1_100_500
    counters.fold(big_table.runtime)
    durations.refresh(big_table.runtime)
    return big_table


@pytest.fixture
def seen(servers):
    return WorkerRegistry(servers.redis_url, "plans", "p1")


def total(plans) -> int:
    return sum(plan.rows_read for plan in plans)


def a_job(big, status: str) -> str:
    return str(big.sql("SELECT id FROM remote_jobs WHERE status = :s AND tenant = 'default' LIMIT 1", s=status)[0].id)


def test_statistics_read_counters_and_heads(big, seen):
    told, plans = done(big, lambda: statistics(big.runtime, seen, "default"))
    assert sum(count.jobs for count in told.counts) > 1_000_000
    assert total(plans) < 500


def test_metrics_read_counters_and_heads(big):
    plans = big.plans(lambda: gauges.read(big.runtime))
    counted = [plan for plan in plans if "not_yet" in plan.statement]  # jobs whose time has not come, one by one
    assert len(counted) == 1
    assert counted[0].rows_read <= big.sql("SELECT count(*) AS jobs FROM remote_jobs WHERE NOT mirrored"
                                           " AND status = 'pending'")[0].jobs + 10 <= gauges.MOST_NOT_DUE  # fmt: skip
    assert sum(plan.rows_read for plan in plans if "continuations" not in plan.statement) - counted[0].rows_read < 500


@pytest.mark.parametrize("status", ["processing", "completed", "failed"])
def test_explain_of_a_job_that_does_not_wait_reads_the_job_and_its_holder(big, seen, status):
    plans = big.plans(lambda: explain(big.runtime, seen, "default", a_job(big, status), keys=True))
    assert total(plans[1:]) < 1200, "the jobs in hand of the tenant, at most"


def test_explain_of_the_last_job_of_a_long_queue_counts_to_a_thousand(big, seen):
    last = "SELECT id FROM remote_jobs WHERE status = 'pending' AND tenant = 'default' AND content_type = 'audio'"
    job_id = str(big.sql(f"{last} AND mirrored ORDER BY priority DESC, queued_at DESC LIMIT 1")[0].id)
    facts, plans = done(big, lambda: explain(big.runtime, seen, "default", job_id, keys=True))
    assert facts.jobs_ahead == 1000
    ahead = [plan for plan in plans if "ahead" in plan.statement]
    assert len(ahead) == 1
    assert total(ahead) <= 3010
    assert total(plans) < 5000


def test_explain_does_not_read_what_waits_for_its_time(big, seen):
    """A thousand and more jobs of a higher priority that are not due stand between the heads and this one."""
    rare = "SELECT id FROM remote_jobs WHERE status = 'pending' AND tenant = 'default' AND content_type = 'rare'"
    job_id = str(big.sql(f"{rare} ORDER BY priority, queued_at LIMIT 1")[0].id)
    plans = big.plans(lambda: explain(big.runtime, seen, "default", job_id, keys=True))
    assert total([plan for plan in plans if "ahead" in plan.statement]) < 50


def test_an_estimate_reads_one_row(big):
    job = find(big.runtime, "default", a_job(big, "processing"), STANDING)
    [plan] = big.plans(lambda: estimated_completion(big.runtime, job))
    assert plan.rows_read <= 1
    assert not plan.scans & {"remote_jobs", "remote_jobs_recent"}


def test_medians_are_refreshed_from_the_ends_of_an_index(big):
    big.sql("DELETE FROM job_durations")
    types = len(big.sql("SELECT DISTINCT tenant, content_type FROM job_counts WHERE status = 'completed'"))
    [plan] = big.plans(lambda: durations.refresh(big.runtime))
    assert "remote_jobs" not in plan.scans
    assert plan.rows_read <= types * (durations.RECENT + 20)
    big.sql("UPDATE job_durations SET refreshed_at = now() + interval '1 hour'")
    [idle] = big.plans(lambda: durations.refresh(big.runtime))
    assert idle.rows_read < 200


def test_workers_are_read_by_what_is_in_hand(big, seen):
    plans = big.plans(lambda: roster_of(big.runtime, seen, "default"))
    assert total(plans) < 1200
    assert not any("remote_jobs" in plan.scans for plan in plans)


def test_the_look_for_workers_in_trouble_reads_the_latest_bad_ends(big):
    quiet = big.plans(lambda: watch(big.runtime))
    assert total(quiet) < 100
    big.sql("UPDATE job_attempts SET ended_at = now() WHERE job_id IN"
            " (SELECT job_id FROM job_attempts WHERE how = 'failed' LIMIT 5)")  # fmt: skip
    busy = big.plans(lambda: watch(big.runtime))
    assert total(busy) < 100
    assert not any("job_attempts" in plan.scans for plan in [*quiet, *busy])


def test_folding_reads_what_has_changed(big):
    big.sql("UPDATE remote_jobs SET status = 'cancelled', completed_at = now(), outcome_count = 1 WHERE id IN"
            " (SELECT id FROM remote_jobs WHERE status = 'pending' LIMIT 20)")  # fmt: skip
    plans = big.plans(lambda: counters.fold(big.runtime))
    assert total(plans) < 200


def test_the_sweeps_of_the_clocks_read_what_is_in_hand_or_due(big):
    plans = big.plans(lambda: expire(big.runtime))
    assert len(plans) >= len(SWEEPS)
    assert not any("remote_jobs" in plan.scans for plan in plans)
    assert max(plan.rows_read for plan in plans) < 1200, "the jobs in hand, at most, and what is done with them"


def test_the_look_for_poison_reads_what_has_lapsed(big):
    lapsed = big.sql("SELECT id FROM remote_jobs WHERE status = 'processing' LIMIT 10")
    big.sql("UPDATE remote_jobs SET lease_expires_at = now(), retry_count = 2 WHERE id = ANY (:ids)",
            ids=[row.id for row in lapsed])  # fmt: skip
    plans = [plan for plan in big.plans(lambda: expire(big.runtime)) if "count(DISTINCT" in plan.statement]
    assert plans
    assert max(plan.rows_read for plan in plans) < 600, "the jobs in hand, at most"


def test_the_sweeps_beside_the_clocks_read_what_is_due(big):
    due = "UPDATE remote_jobs SET available_at = now() WHERE id IN (SELECT id FROM remote_jobs WHERE NOT mirrored"
    big.sql(f"{due} AND status = 'pending' LIMIT 30)")
    released, plans = done(big, lambda: release_due(big.runtime.engine, big.runtime.mirror))
    assert released >= 30
    assert total(plans) <= 5 * released

    sent = []
    big.sql("UPDATE continuations SET next_at = now(), sent_at = NULL WHERE (job_id, n) IN"
            " (SELECT job_id, n FROM continuations WHERE next_at IS NULL LIMIT 30)")  # fmt: skip
    plans = big.plans(lambda: deliver(big.runtime, lambda *what: sent.append(what), (OSError,)))
    assert len(sent) >= 30
    assert total(plans) <= 10 * len(sent)

    old = big.sql("SELECT count(*) FROM remote_jobs WHERE completed_at < now() - interval '30 days'")[0].count
    assert old > 500_000
    plans = big.plans(lambda: purge(big.runtime, batch=200, rounds=2))
    assert total(plans) <= 2 * 200 * 6
    assert not any("remote_jobs" in plan.scans for plan in plans)


def test_forgetting_batches_reads_the_old_ones(big):
    big.sql("INSERT INTO job_batches (tenant, idempotency_key, idempotency_hash, job_ids, created_at)"
            " SELECT 'default', 'batch-' || i, '', ARRAY[CAST(md5(CAST(i AS text)) AS uuid)],"
            " now() - CASE WHEN i <= 40 THEN interval '1 year' ELSE interval '1 day' END"
            " FROM generate_series(1, 100000) i")  # fmt: skip
    big.sql("ANALYZE job_batches")
    plans = [plan for plan in big.plans(lambda: purge(big.runtime, rounds=0)) if "job_batches" in plan.statement]
    assert len(plans) == 1
    assert "job_batches" not in plans[0].scans
    assert total(plans) < 500
    assert big.sql("SELECT count(*) FROM job_batches WHERE created_at < now() - interval '30 days'")[0].count == 0


def test_the_repair_of_the_mirror_reads_heads(big):
    big.runtime.mirror.set_epoch()
    tomorrow = "now() + interval '1 day'"
    big.sql("UPDATE remote_jobs SET content_type = 'tomorrow', mirrored = false,"
            f" available_at = {tomorrow}, queued_at = {tomorrow} WHERE id IN"
            " (SELECT id FROM remote_jobs WHERE status = 'pending' AND content_type = 'document'"
            " LIMIT 5000)")  # fmt: skip
    big.sql("ANALYZE remote_jobs")
    plans = big.plans(lambda: reconcile(big.runtime.engine, big.runtime.mirror))
    assert not any("remote_jobs" in plan.scans for plan in plans)
    assert max(plan.rows_read for plan in plans) < 3000, "some hundred heads of a queue, looked up and compared"
