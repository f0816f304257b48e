"""Signs of life: what acknowledges a claim, what renews a lease, who may, and the three clocks' precedence."""

import pytest

from bridge.jobs.expire import expire
from bridge.jobs.release import take_from_key
from tests.support.core import KEY, OTHER_KEY, outcome_of

A_MINUTE = 60


def lease_left(core, job) -> float:
    return core.sql("SELECT extract(epoch FROM lease_expires_at - now()) AS s FROM remote_jobs WHERE id = :id",
                    id=str(job.job_id))[0].s  # fmt: skip


def test_until_it_is_acknowledged_a_claim_has_the_window_and_no_longer(core):
    job = core.held(acknowledge=False)
    assert job.lease_expires_at == job.ack_by
    assert 55 < lease_left(core, job) <= 60


def test_the_first_sign_of_life_acknowledges_and_gives_the_lease_that_was_named(core):
    job = core.claim(core.create(), lease=600)
    alive = core.heartbeat(job)
    assert 595 < lease_left(core, job) <= 600
    row = core.row(job.job_id)
    assert row.acknowledged_at is not None
    assert alive == ("processing", row.lease_expires_at, False, "w1")


@pytest.mark.parametrize(("lease", "timeout"), [(None, 1000), (600, 100)])
def test_without_a_lease_it_is_the_deadline_and_no_lease_outlives_that(core, lease, timeout):
    job = core.claim(core.create(timeout_seconds=timeout), lease=lease)
    assert core.heartbeat(job).lease_expires_at == job.timeout_at


def test_a_sign_of_life_without_news_is_written_once_per_third_of_a_lease(core):
    job = core.held()
    first = core.row(job.job_id).lease_expires_at
    core.age(job.job_id, 10)
    assert core.heartbeat(job).lease_expires_at == core.row(job.job_id).lease_expires_at < first
    core.age(job.job_id, 11)
    core.heartbeat(job)
    assert 55 < lease_left(core, job) <= 60


def test_a_lease_that_ran_out_while_the_clocks_stood_is_renewed_by_the_next_sign_of_life(core):
    """What the order of an upgrade in docs/operations.md relies on."""
    job = core.held()
    core.age(job.job_id, 2 * A_MINUTE)
    core.heartbeat(job)
    assert 55 < lease_left(core, job) <= 60
    assert core.expire() == 0


def test_progress_is_written_at_once_and_renews(core):
    job = core.held()
    core.age(job.job_id, 5)
    core.heartbeat(job, progress=0.5, message="half")
    row = core.row(job.job_id)
    assert (row.progress, row.message) == (0.5, "half")
    assert 55 < lease_left(core, job) <= 60
    core.heartbeat(job, progress=0.6)
    assert core.row(job.job_id).message == "half"


def test_a_renewal_that_waited_for_the_row_counts_from_the_end_of_its_wait(core):
    job = core.held()
    core.age(job.job_id, 30)
    with core.locked(job.job_id, lambda: core.heartbeat(job)) as (connection, done):
        connection.exec_driver_sql("SELECT pg_sleep(1)")
    assert done.result(60).lease_expires_at == core.row(job.job_id).lease_expires_at
    assert lease_left(core, job) > 59.5


@pytest.mark.parametrize("state", ["pending", "claimed by another"])
def test_a_sign_of_life_after_the_lease_is_lost_is_told_so(core, state):
    job = core.held()
    core.expire_after(job.job_id)
    if state == "claimed by another":
        core.age(job.job_id, 60)
        assert core.claim(str(job.job_id), "w2")
    before = core.row(job.job_id)
    assert outcome_of(lambda: core.heartbeat(job)) == "lease_lost"
    assert core.row(job.job_id) == before


def test_nothing_of_another_key_or_a_stale_token_acknowledges(core):
    job = core.held(acknowledge=False)
    assert outcome_of(lambda: core.heartbeat(job, key=OTHER_KEY)) == "lease_lost"
    assert outcome_of(lambda: core.heartbeat(job, token="x" * 43)) == "lease_lost"
    assert core.row(job.job_id).acknowledged_at is None


def test_a_token_is_required_where_a_lease_was_named_and_only_there(core):
    named, unnamed = core.claim(core.create(), lease=60), core.claim(core.create(), lease=None)
    assert outcome_of(lambda: core.heartbeat(named, token=None)) == "lease_lost"
    assert core.heartbeat(unnamed, token=None).status == "processing"
    assert outcome_of(lambda: core.heartbeat(unnamed, token="wrong")) == "lease_lost"


def test_an_unacknowledged_claim_goes_back_even_when_the_deadline_is_shorter(core):
    job = core.held(acknowledge=False, timeout_seconds=10)
    core.expire_after(job.job_id, 30)
    assert core.status(job.job_id) == "processing"
    core.expire_after(job.job_id, 31)
    assert (core.status(job.job_id), core.hows(job.job_id)) == ("pending", ["unacknowledged"])


def test_the_backoff_grows_and_has_a_maximum(make_runtime, core):
    core.runtime = make_runtime(retry_backoff="base=100,factor=3,max=500,jitter=0")
    job_id = core.create(max_retries=5)
    delays = []
    for n in range(4):
        core.age(job_id, 1000)
        core.result(core.claim(job_id, f"w{n}"), success=False)
        row = core.row(job_id)
        delays.append((row.available_at - row.attempt_ended_at).total_seconds())
    assert delays == [100, 300, 500, 500]


def test_the_jitter_spreads_retries_and_is_the_same_in_every_column(core):
    waits = set()
    for _ in range(20):
        job = core.held()
        core.result(job, success=False)
        row = core.row(job.job_id)
        assert row.queued_at == row.available_at
        assert (row.timeout_at - row.available_at).total_seconds() == row.queue_timeout_seconds
        waits.add(round((row.available_at - row.attempt_ended_at).total_seconds(), 6))
    assert len(waits) == 20
    assert min(waits) >= 9
    assert max(waits) <= 11


def test_what_a_revoked_key_holds_waits_at_once_a_batch_a_transaction_and_nothing_else_changes(core):
    held = [core.held(acknowledge=n % 2 == 0) for n in range(5)]
    ended, given_back = core.held(), core.held()
    core.result(ended)
    core.release(given_back)
    theirs = core.claim(core.create(), key=OTHER_KEY, acknowledge=True)
    taken = []
    for rows in take_from_key(core.engine, KEY.key_id, batch=2):
        taken += [row.id for row in rows]
        pending = core.sql("SELECT id FROM remote_jobs WHERE status = 'pending' AND id <> :id", id=given_back.job_id)
        assert {row.id for row in pending} == set(taken), "what was taken is committed before the next batch begins"
    assert sorted(taken) == sorted(job.job_id for job in held)
    assert [core.hows(job.job_id) for job in (*held, given_back)] == [["released"]] * 6
    assert (core.status(ended.job_id), core.status(theirs.job_id)) == ("completed", "processing")


@pytest.mark.parametrize("end", ["revoked_at = now()", "expires_at = now()"])
def test_what_a_dead_key_holds_goes_back_without_spending_a_retry(core, end):
    made = "INSERT INTO api_keys (id, prefix, secret_hash, name, tenant, scopes)"
    made += " VALUES (:id, :name, '', :name, 'default', '{work}')"
    for name, key in (("dead", KEY), ("live", OTHER_KEY)):
        core.sql(made, id=key.key_id, name=name)
    core.sql(f"UPDATE api_keys SET {end} WHERE id = :id", id=KEY.key_id)
    finished, held = core.held(), core.held()
    core.result(finished)
    theirs = core.claim(core.create(), key=OTHER_KEY, acknowledge=True)
    assert expire(core.runtime, batch=1) == 1
    row = core.row(held.job_id)
    assert (row.status, row.attempt_end, row.retry_count, row.return_count) == ("pending", "released", 0, 0)
    assert core.status(finished.job_id) == "completed"
    assert core.status(theirs.job_id) == "processing"
