"""Plans at 100 000 pending and 1 000 000 finished jobs: what is read grows with the answer, not with the table."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from bridge.caller import Caller
from bridge.errors import Invalid
from bridge.jobs.bulk import steer
from bridge.jobs.claim import Claimant, default_wait, replay
from bridge.jobs.enqueue import enqueue, enqueue_batch
from bridge.jobs.fields import CreateFields
from bridge.jobs.listing import page
from bridge.outbox import outcomes
from models.job_state import Asked, JobState, OutcomeState
from tests.support.big_table import RARE_TYPE, RARE_WORKER, TENANT
from tests.support.core import KEY, Core

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]  # the first one waits for the loading

LIMIT = 50


def ago(**of):
    return datetime.now(UTC) - timedelta(**of)


def done(table, verb):
    """Return what a verb returns, and the plans of its statements."""
    results = []
    plans = table.plans(lambda: results.append(verb()))
    return results[0], plans


# With each of them a page reads about as many rows as it shows; a type without a status reads so many of each status.
INDEXED = {
    "nothing": {},
    "pending": {"status": "pending"},
    "completed": {"status": "completed"},
    "failed": {"status": "failed"},
    "a type": {"content_type": "audio"},
    "a rare type": {"content_type": RARE_TYPE},
    "an unknown type": {"content_type": "nothing"},
    "a type and a status": {"content_type": "video", "status": "failed"},
    "a rare type and a status": {"content_type": RARE_TYPE, "status": "completed"},
    "a task": {"ingestion_task_id": "task-1000"},
    "a task and a status": {"ingestion_task_id": "task-1000", "status": "completed"},
    "an unknown task": {"ingestion_task_id": "nothing"},
    "a worker": {"worker_id": "worker-7"},
    "a rare worker": {"worker_id": RARE_WORKER},
    "an unknown worker": {"worker_id": "nothing"},
    "after": {"created_after": ago(hours=1)},
    "before": {"created_before": ago(days=100)},
    "between": {"created_after": ago(days=100), "created_before": ago(days=99)},
    "nothing between": {"created_after": ago(days=99), "created_before": ago(days=100)},
    "a status before": {"status": "failed", "created_before": ago(days=100)},
    "a type and a status before": {"content_type": "audio", "status": "timeout", "created_before": ago(days=100)},
    "a worker before": {"worker_id": "worker-7", "created_before": ago(days=100)},
}


@pytest.mark.parametrize("filters", INDEXED.values(), ids=INDEXED)
def test_a_page_of_the_list_reads_about_what_it_shows(big_table, filters):
    (plan,) = big_table.plans(lambda: page(big_table.runtime, TENANT, filters, LIMIT, None))
    by_status = len(JobState) if set(filters) == {"content_type"} else 1
    assert plan.rows_read <= (LIMIT + 1) * by_status
    assert plan.pages <= 40 + 10 * plan.rows_read
    assert "remote_jobs" not in plan.scans


@pytest.mark.parametrize("name", ["nothing", "completed", "a type", "a type and a status", "a worker"])
def test_a_page_far_down_the_list_reads_no_more_than_the_first(big_table, name):
    first, cursor = page(big_table.runtime, TENANT, {**INDEXED[name], "created_before": ago(days=150)}, 1, None)
    (rows, more), (plan,) = done(big_table, lambda: page(big_table.runtime, TENANT, INDEXED[name], LIMIT, cursor))
    assert len(rows) == LIMIT
    assert more is not None
    assert all((row.created_at, row.id) < (first[0].created_at, first[0].id) for row in rows)
    assert plan.rows_read <= (LIMIT + 1) * (len(JobState) if name == "a type" else 1)


# No index has these together: the better one of two is used, and what the other filter leaves out is read in vain. At
# this size that is what a worker or a status had in all; it never is the table.
@pytest.mark.parametrize(
    ("filters", "most"),
    [
        ({"worker_id": "worker-7", "status": "failed"}, 6_000),
        ({"worker_id": "worker-7", "content_type": "video"}, 6_000),
        ({"worker_id": RARE_WORKER, "status": "completed"}, 300),
        ({"ingestion_task_id": "task-1000", "content_type": "audio"}, 10),
        ({"status": "processing"}, 500),  # all that is in somebody's hands is few, and has small indexes of its own
    ],
)
def test_other_combinations_read_no_more_than_one_of_their_filters_leaves(big_table, filters, most):
    (plan,) = big_table.plans(lambda: page(big_table.runtime, TENANT, filters, LIMIT, None))
    assert plan.rows_read <= most
    assert "remote_jobs" not in plan.scans


@pytest.fixture
def created(big_table):
    source = big_table.runtime.settings.source_roots[0] / "source"
    source.write_text("source")
    return CreateFields().load({"source_file_path": str(source), "content_type": "audio", "ingestion_task_id": "new"})


def test_a_create_looks_its_idempotency_key_up_in_the_index_and_reads_one_row_at_most(big_table, created):
    def known():
        with pytest.raises(Invalid):
            enqueue(big_table.runtime, TENANT, created, idempotency_key="key-500000")

    (found,) = big_table.plans(known)
    new = big_table.plans(lambda: enqueue(big_table.runtime, TENANT, created, idempotency_key="new"))
    looked, inserted = new  # before and after the source file was looked at, the second time with the INSERT
    assert (found.rows_read, found.rows) == (1, 1)
    assert (looked.rows_read, looked.rows) == (0, 1)
    for plan in (found, looked):
        assert "remote_jobs_idempotency" in plan.scans
        assert "remote_jobs" not in plan.scans
        assert plan.pages <= 10
    assert "remote_jobs" not in inserted.scans
    assert inserted.rows_read == 0


def test_a_batch_of_a_thousand_is_looked_up_kept_and_inserted_without_reading(big_table, created):
    many = [created] * 1000
    plans = big_table.plans(lambda: enqueue_batch(big_table.runtime, TENANT, many, idempotency_key="batch"))
    assert [plan.statement.split()[0] for plan in plans] == ["SELECT", "SELECT", "INSERT", "INSERT", "INSERT"]
    assert sum(plan.rows_read for plan in plans) == 0
    (replayed,) = big_table.plans(lambda: enqueue_batch(big_table.runtime, TENANT, many, idempotency_key="batch"))
    assert replayed.rows_read == 1


@pytest.mark.parametrize(
    ("asked", "filters"),
    [
        (Asked.CANCEL, {"content_type": RARE_TYPE}),
        (Asked.CANCEL, {"content_type": "document", "created_after": ago(hours=20)}),
        (Asked.CANCEL, {"status": "processing", "content_type": "video"}),
        (Asked.CANCEL, {"ingestion_task_id": "task-350000"}),
        (Asked.CANCEL, {"created_after": ago(hours=1)}),
        (Asked.RETRY, {"content_type": "video", "status": "failed", "created_after": ago(days=25)}),
        (Asked.RETRY, {"status": "timeout", "created_before": ago(days=253)}),
        (Asked.RETRY, {"ingestion_task_id": "task-30"}),
        (Asked.RETRY, {"worker_id": RARE_WORKER}),
    ],
)
def test_a_bulk_change_reads_what_matches_and_its_batches(big_table, asked, filters):
    who = Caller(uuid.UUID(int=1), TENANT)
    result, plans = done(big_table, lambda: steer(big_table.runtime, who, asked, filters, batch=100))
    assert result.matched == result.changed > 0
    counted, *batches = plans
    # A worker's or a task's finished jobs are passed over, and those of a moment in other states.
    passed_over = 2_000
    assert counted.rows_read <= result.matched + passed_over
    looked_up = [plan for plan in batches if plan.statement.startswith("SELECT")]
    changed = [plan for plan in batches if not plan.statement.startswith("SELECT")]
    assert len(changed) == -(-result.matched // 100)
    assert sum(plan.rows_read for plan in looked_up) <= 4 * result.matched + passed_over * (len(looked_up) + 1)
    assert all(plan.rows_read <= 100 * 8 for plan in changed)
    assert all("remote_jobs" not in plan.scans for plan in plans)


@pytest.mark.parametrize("state", [None, *OutcomeState])
def test_a_page_of_outcomes_reads_about_what_it_shows(big_table, state):
    (rows, cursor), (plan,) = done(big_table, lambda: outcomes.page(big_table.runtime, TENANT, state, LIMIT, None))
    assert len(rows) == LIMIT
    (further,) = big_table.plans(lambda: outcomes.page(big_table.runtime, TENANT, state, LIMIT, cursor))
    for one in (plan, further):
        assert one.rows_read <= (LIMIT + 1) * (2 if state is None else 1)
        assert "continuations" not in one.scans


def test_failing_outcomes_are_sent_again_without_reading_the_others(big_table):
    changed, plans = done(big_table, lambda: outcomes.resend_failing(big_table.runtime, TENANT, batch=40))
    assert 40 < changed <= 100
    assert all(plan.rows_read <= 40 * 4 for plan in plans)
    assert all("continuations" not in plan.scans for plan in plans)


@pytest.fixture(scope="module")
def core(big_table):
    return Core(big_table.runtime)


def test_what_is_next_is_read_from_the_heads_of_the_queues(core, big_table):
    lines, (plan,) = done(big_table, lambda: core.lines(["audio", "video", "nothing"], 10))
    assert [len(line) for line in lines] == [10, 10, 0]
    assert plan.rows_read <= 3 * 30, "as many of each priority"
    assert plan.scans == {"remote_jobs_claim"}


def test_what_is_next_is_not_looked_for_among_what_waits_for_its_time(core, big_table):
    later = "UPDATE remote_jobs SET content_type = 'later', available_at = tomorrow, queued_at = tomorrow"
    big_table.sql(
        f"{later}, mirrored = false FROM (SELECT now() + interval '1 day' AS tomorrow) t WHERE id IN"
        " (SELECT id FROM remote_jobs WHERE status = 'pending' AND content_type = 'document' LIMIT 5000)"
    )
    big_table.sql("ANALYZE remote_jobs")
    lines, (plan,) = done(big_table, lambda: core.lines(["later"], 10))
    assert lines == [[]]
    assert plan.rows_read == 0


@pytest.mark.parametrize("claim_id", [None, "c1"])
def test_a_claim_reads_what_it_is_offered(core, big_table, claim_id):
    offered = core.next("audio", 20)
    in_hand = len(big_table.sql("SELECT FROM remote_jobs WHERE status = 'processing'"))
    fates, (plan,) = done(big_table, lambda: core.offer(offered, f"w-{claim_id}", claim_id=claim_id))
    assert len(fates.claimed) == 20
    assert plan.rows_read <= 20 * 5 + in_hand, "the jobs in hand, at most, for what the claim has already"
    assert "remote_jobs" not in plan.scans


def test_a_replay_and_the_look_for_held_jobs_read_the_workers_jobs_in_hand(core, big_table):
    core.offer(core.next("audio", 5), "w-again", claim_id="c2")
    who = Claimant(KEY.key_id, "w-again", 60, "c2", TENANT)

    def looks():
        with core.engine.connect() as connection:
            assert len(replay(connection, [who, who._replace(claim_id="never")])[0]) == 5
            assert default_wait(connection, who) == 0

    in_hand = len(big_table.sql("SELECT FROM remote_jobs WHERE status = 'processing'"))
    replayed, held = big_table.plans(looks)
    assert replayed.rows_read <= 10 + in_hand, "those in hand, at most: while they are few they are read as a whole"
    assert held.rows_read <= 10
    assert "remote_jobs" not in replayed.scans | held.scans


@pytest.mark.parametrize("verb", ["heartbeat", "result", "release", "cancel"])
def test_what_happens_to_one_job_reads_that_job(core, big_table, verb):
    job = core.offer(core.next("audio", 1), f"w-{verb}").claimed[0]
    plans = big_table.plans(lambda: getattr(core, verb)(job.job_id if verb == "cancel" else job))
    assert plans
    assert sum(plan.rows_read for plan in plans) <= 10
    assert not any("remote_jobs" in plan.scans for plan in plans)
