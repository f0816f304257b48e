"""Cancel and retry of all that match, the core called directly: in batches, one winner a race, the mirror told."""

from datetime import UTC, datetime, timedelta

import pytest

from bridge.caller import Caller
from bridge.errors import BridgeError, Conflict
from bridge.jobs.bulk import steer
from bridge.jobs.lost_race import MOST_LOOKS, again_if_lost
from bridge.queues import Entry, Queue
from models.job_state import Asked, Priority
from tests.support.core import KEY, Core
from tests.support.racing import at_once, watching
from tests.support.waiting import wait_until


def test_a_change_goes_in_bounded_batches_that_are_committed_one_by_one(core):
    made = [core.create() for _ in range(7)]
    updates: list[int] = []

    def note(connection, cursor, statement, *_):
        if "UPDATE remote_jobs" in statement:
            updates.append(cursor.rowcount)

    with watching(core.engine, note, "after_cursor_execute"):
        assert steer(core.runtime, KEY, Asked.CANCEL, {"content_type": "audio"}, batch=3) == (7, 7)
    assert updates == [3, 3, 1]
    assert {core.status(job_id) for job_id in made} == {"cancelled"}
    xmins = core.sql("SELECT DISTINCT xmin::text FROM remote_jobs")
    assert len(xmins) == 3


def test_the_mirror_and_the_continuation_are_told_of_a_bulk_cancel(core, redis):
    many = [core.create(priority="high") for _ in range(20)]
    few = [core.create("video") for _ in range(2)]
    later = core.create(available_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    kept = core.create("web")
    filters = {"created_before": datetime.now(UTC) + timedelta(days=1), "status": "pending"}
    core.sql("UPDATE remote_jobs SET content_type = 'web' WHERE id = :id", id=kept)
    cancelled = steer(core.runtime, KEY, Asked.CANCEL, {**filters, "content_type": "audio"}, batch=8)
    assert cancelled == (21, 21)
    assert steer(core.runtime, KEY, Asked.CANCEL, {**filters, "content_type": "video"}) == (2, 2)
    assert redis.keys("core:{*") == ["core:{default:web}:pending:normal"]
    nudged = core.runtime.nudge
    assert sorted(nudged) == sorted([*many, *few, later])
    assert core.sql("SELECT count(*) FROM continuations")[0][0] == 23


def test_a_cancel_looks_for_a_job_in_its_list_only_while_it_waits(core, redis):
    waiting, held = core.create("video"), core.held("w1")
    key = "core:{default:audio}:pending:normal"
    redis.rpush(key, str(held.job_id))  # it does not stand there; what is left of it tells that nobody has looked
    for job_id in (waiting, held.job_id):
        assert core.cancel(job_id) == "cancelled"
    assert redis.keys("core:{*") == [key]
    assert redis.lrange(key, 0, -1) == [str(held.job_id)]


def test_ids_anywhere_in_a_long_list_are_taken_out_and_no_others(core, redis):
    queue = Queue("default", "audio")
    key = core.runtime.mirror.keys.pending(queue, Priority.NORMAL)
    ids = [f"00000000-0000-0000-0000-{n:012}" for n in range(3500)]
    redis.lpush(key, *ids)
    gone = {0, 1, 998, 999, 1000, 1001, 1999, 2000, 2500, 3498, 3499}
    absent = Entry(queue, Priority.NORMAL, "00000000-0000-0000-0000-999999999999")
    core.runtime.mirror.drop([*(Entry(queue, Priority.NORMAL, ids[n]) for n in gone), absent])
    assert redis.lrange(key, 0, -1)[::-1] == [job_id for n, job_id in enumerate(ids) if n not in gone]


def test_jobs_put_back_stand_in_the_mirror_in_the_order_of_postgresql(core, redis):
    made = [core.create() for _ in range(25)]
    steer(core.runtime, KEY, Asked.CANCEL, {"status": "pending"})
    assert steer(core.runtime, KEY, Asked.RETRY, {"status": "cancelled"}, batch=10) == (25, 25)
    assert redis.lrange("core:{default:audio}:pending:normal", 0, -1)[::-1] == made == core.next(count=25)


CLAIMED = (
    "UPDATE remote_jobs SET status = 'processing', attempt = attempt + 1, worker_id = 'another', lease_token = 'x',"
    " key_id = gen_random_uuid(), started_at = now(), ack_by = now(), lease_expires_at = now(), completed_at = NULL"
)
CANCELLED = "UPDATE remote_jobs SET status = 'cancelled', completed_at = now(), outcome_count = 1"
FAILED = "UPDATE remote_jobs SET status = 'failed', completed_at = now()"
OTHERS = "UPDATE remote_jobs SET worker_id = 'another'"
PENDING = "UPDATE remote_jobs SET status = 'pending', completed_at = NULL"


@pytest.mark.parametrize(
    ("asked", "held", "filters", "meanwhile"),
    [
        (Asked.CANCEL, False, {"status": "pending"}, [CLAIMED]),
        (Asked.CANCEL, True, {"worker_id": "w1"}, [OTHERS]),
        (Asked.CANCEL, False, {"content_type": "audio"}, [CANCELLED]),
        (Asked.RETRY, False, {"status": "cancelled"}, [PENDING]),
        (Asked.RETRY, False, {"content_type": "audio"}, [PENDING, CLAIMED]),
        (Asked.RETRY, False, {"status": "cancelled"}, [PENDING, FAILED]),
        (Asked.RETRY, True, {"worker_id": "w1"}, [OTHERS]),
    ],
)
def test_a_job_that_moved_on_before_its_turn_is_judged_by_what_it_is_then(core, asked, held, filters, meanwhile):
    job_id = str(core.held("w1").job_id) if held else core.create()
    if asked is Asked.RETRY:
        core.cancel(job_id)
    with core.locked(job_id, lambda: steer(core.runtime, KEY, asked, filters)) as (connection, done):
        for statement in meanwhile:
            connection.exec_driver_sql(statement)
        then = connection.exec_driver_sql("SELECT status FROM remote_jobs").scalar_one()
    assert done.result(60) == (1, 0)
    assert core.status(job_id) == then


def test_jobs_created_while_a_bulk_cancel_runs_are_left_alone(core):
    first = core.create()
    with core.locked(first, lambda: steer(core.runtime, KEY, Asked.CANCEL, {"content_type": "audio"}, batch=1)):
        second = core.create()
    wait_until(lambda: core.status(first) == "cancelled", "the cancel")
    assert core.status(second) == "pending"


def test_only_the_jobs_of_a_batch_are_changed_by_it(core):
    mine, others = core.create("audio"), core.create("video")
    assert steer(core.runtime, KEY, Asked.CANCEL, {"content_type": "audio"}) == (1, 1)
    assert (core.status(mine), core.status(others)) == ("cancelled", "pending")
    assert steer(core.runtime, KEY, Asked.CANCEL, {"content_type": "video"}) == (1, 1)
    assert steer(core.runtime, KEY, Asked.RETRY, {"content_type": "audio"}) == (1, 1)
    assert (core.status(mine), core.status(others)) == ("pending", "cancelled")


def test_where_nobody_is_to_be_told_a_bulk_cancel_records_no_outcome(make_runtime):
    core = Core(make_runtime(continuation_task=""))
    job_id = core.create()
    assert steer(core.runtime, KEY, Asked.CANCEL, {"status": "pending"}) == (1, 1)
    assert core.outcomes(job_id) == []


@pytest.mark.parametrize("held", [True, False])
def test_a_cancel_by_filter_a_claim_and_a_result_have_one_winner(core, held):
    wins = {"cancelled": 0, "completed": 0}
    for _ in range(40):
        job_id = core.create()
        job = core.claim(job_id, acknowledge=True) if held else None

        def work(job_id=job_id, job=job):
            job = job or core.claim(job_id)
            return core.result(job) if job else None

        cancelled, done = at_once(lambda: steer(core.runtime, KEY, Asked.CANCEL, {"content_type": "audio"}), work)
        row = core.row(job_id)
        wins[row.status] += 1
        completed = done is not None and not isinstance(done, BridgeError)
        assert (cancelled.changed, completed) == ((1, False) if row.status == "cancelled" else (0, True))
        assert row.outcome_count == len(core.outcomes(job_id)) == 1
        asked = core.sql("SELECT what FROM job_requests WHERE job_id = :id", id=job_id)
        assert len(asked) == cancelled.changed
    assert sum(wins.values()) == 40


def test_two_bulk_changes_at_once_change_each_job_once(core):
    for _ in range(10):
        made = [core.create() for _ in range(30)]
        who = [Caller(), KEY]
        answers = at_once(
            *[lambda key=key: steer(core.runtime, key, Asked.CANCEL, {"status": "pending"}, batch=7) for key in who]
        )
        assert sum(answer.changed for answer in answers) == len(made)
        rows = core.sql("SELECT outcome_count, status FROM remote_jobs WHERE id = ANY(CAST(:ids AS uuid[]))", ids=made)
        assert {(row.status, row.outcome_count) for row in rows} == {("cancelled", 1)}
        lines = core.sql("SELECT job_id FROM job_requests WHERE job_id = ANY(CAST(:ids AS uuid[]))", ids=made)
        assert len(lines) == len({line.job_id for line in lines}) == len(made)


def test_a_job_that_changes_at_every_look_is_not_looked_at_for_ever(core):
    looks: list[str] = []
    with pytest.raises(Conflict, match="changed too often") as refusal:
        again_if_lost(core.runtime, core.tenant, core.create(), lambda job: looks.append(job.status))
    assert looks == ["pending"] * MOST_LOOKS
    assert refusal.value.job_status == "pending"
