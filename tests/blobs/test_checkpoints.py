"""Checkpoints that were uploaded: which uploads count, who is given them, and for how long they are kept."""

import pytest

from bridge.blobs import collect, content, uploads
from bridge.errors import Conflict, Invalid, NotFound, TooMany
from bridge.jobs import job_log
from bridge.jobs.artifacts import page, standing
from bridge.jobs.purge import purge
from bridge.jobs.uploaded_sources import with_uploads
from tests.support.core import KEY, OTHER_KEY, Core, outcome_of
from tests.support.of_an_attempt import Work, foreign_uploads
from tests.support.racing import at_once, meanwhile
from tests.support.sound import all_sound
from tests.support.tus import objects

MIB = 1024 * 1024


@pytest.fixture
def work(core):
    return Work(core)


def name(core, job, upload, *, key=KEY, token=None):
    return job_log.save_upload(core.runtime, core.of(key), str(job.job_id), upload, token or job.lease_token)


def saved(core, job, *, key=KEY, token=None):
    """Return the bytes that the holder is given."""
    _, file = job_log.saved_upload(core.runtime, core.of(key), str(job.job_id), token or job.lease_token)
    return b"".join(content.pieces(core.runtime, file.id, range(file.length)))


def named(core):
    """Return what jobs name, and nothing else that is kept without an end."""
    kept = {str(row.id) for row in core.sql("SELECT id FROM uploads WHERE expires_at IS NULL")}
    rows = core.sql("SELECT upload_id FROM job_uploads")
    assert kept == {str(row.upload_id) for row in rows}
    assert len(kept) == len(rows)
    all_sound(core)
    return kept


def collected(core):
    """Let two days pass for what nobody names, collect, and return what is left of all uploads."""
    for table, clock in (("uploads", "expires_at"), ("upload_segments", "written_at")):
        core.sql(f"UPDATE {table} SET {clock} = {clock} - interval '2 days'")
    collect.collect(core.runtime)
    left = {str(row.id) for row in core.sql("SELECT id FROM uploads")}
    assert len(objects(core.runtime.settings)) == len(left)
    return left


def test_only_complete_uploads_of_this_attempt_count(core, work):
    job, other = core.held(), core.held()
    mine = work.upload(job)
    name(core, job, mine)
    for why, upload in foreign_uploads(work, job, other).items():
        with pytest.raises(Invalid, match=r"checkpoint_upload.*No such upload"):
            pytest.fail(f"{why}: {name(core, job, upload)}")
    assert saved(core, job) == b"text"
    assert named(core) == {mine}


def test_only_the_holder_of_the_latest_attempt_names_and_reads(core, work):
    job = core.held()
    upload = work.upload(job)
    with pytest.raises(NotFound):
        saved(core, job)
    name(core, job, upload)
    for use in (lambda job, **who: name(core, job, upload, **who), lambda job, **who: saved(core, job, **who)):
        assert outcome_of(lambda use=use: use(job, key=OTHER_KEY)) == "lease_lost"
        assert outcome_of(lambda use=use: use(job, token="guessed")) == "lease_lost"
    core.release(job)
    assert outcome_of(lambda: saved(core, job)) == "lease_lost"
    again = core.claim(str(job.job_id), "w2", acknowledge=True)
    assert outcome_of(lambda: name(core, job, upload)) == outcome_of(lambda: saved(core, job)) == "lease_lost"
    assert saved(core, again) == b"text"
    core.cancel(job.job_id)
    assert name(core, again, upload).cancel_requested
    assert outcome_of(lambda: saved(core, again)) == "lease_lost"


def test_each_form_takes_the_place_of_the_other_and_the_next_claim_has_the_last(core, work):
    job, other = core.held(), core.held()
    theirs = work.upload(other)
    name(core, other, theirs)

    def next_attempt(job):
        core.release(job)
        core.age(job.job_id, 11)
        (given,) = with_uploads(core.runtime, [core.claim(str(job.job_id), "w1", acknowledge=True)])
        return given, (given.checkpoint_bytes, given.checkpoint and given.checkpoint.length)

    job, given = next_attempt(job)
    assert given == (None, None)
    first, second = work.upload(job, b"1"), work.upload(job, b"22")
    for upload in (first, second, second):  # again, as after a lost answer
        name(core, job, upload)
    job, given = next_attempt(job)
    assert given == (None, 2)
    assert collected(core) == named(core) == {theirs, second}
    job_log.save(core.runtime, KEY, str(job.job_id), "333", job.lease_token)
    job, given = next_attempt(job)
    assert given == (3, None)
    assert outcome_of(lambda: saved(core, job)) == "not_found"
    assert collected(core) == named(core) == {theirs}
    third = work.upload(job, b"4444")
    name(core, job, third)
    assert core.sql("SELECT FROM job_checkpoints") == []
    job, given = next_attempt(job)
    assert given == (None, 4)


@pytest.mark.parametrize("end", ["release", "lease", "retry", "failed", "cancelled"])
def test_it_outlives_every_end_of_its_attempt_that_another_may_follow(core, work, end):
    job = core.held(max_retries=0 if end == "failed" else 3)
    upload = work.upload(job)
    name(core, job, upload)
    if end == "release":
        core.release(job)
    elif end == "lease":
        core.age(job.job_id, 100)
        core.expire()
    elif end == "cancelled":
        core.cancel(job.job_id)
    else:
        core.result(job, success=False, error_message="no")
    assert collected(core) == named(core) == {upload}
    if end in ("failed", "cancelled"):
        core.restart(job.job_id)
    core.age(job.job_id, 1000)
    assert saved(core, core.claim(str(job.job_id), "w2", acknowledge=True)) == b"text"


def test_it_goes_when_its_job_is_completed_or_deleted(core, work):
    done, failed, late = core.held(), core.held(max_retries=0), core.held()
    for job in (done, failed, late):
        name(core, job, work.upload(job))
    core.result(done)
    core.age(late.job_id, 100)
    core.expire()
    core.result(late)
    core.result(failed, success=False, error_message="no")
    assert len(named(core)) == len(collected(core)) == 1
    assert core.row(done.job_id).checkpoint_upload is None
    assert page(core.runtime, "default", str(done.job_id), 10, None) == ([], None)
    assert standing(core.runtime, core.row(done.job_id)).size == len("text")
    core.sql("UPDATE continuations SET next_at = NULL, sent_at = now()")
    core.age(failed.job_id, 40 * 86400)
    assert purge(core.runtime) == 1
    assert collected(core) == named(core) == set()


def test_what_is_the_checkpoint_may_be_a_file_of_the_result_too(core, work):
    job = core.held()
    both, other = work.upload(job), work.upload(job)
    name(core, job, both)
    assert work.submit(job, artifacts=[{"name": "a", "upload": both}, {"name": "b", "upload": other}]) == "completed"
    assert collected(core) == named(core) == {both, other}


def test_what_is_named_is_not_given_up_and_what_was_given_up_is_not_named(core, work):
    job = core.held()
    upload, gone = work.upload(job), work.upload(job)
    name(core, job, upload)
    with pytest.raises(Conflict):
        uploads.give_up(core.runtime, KEY, upload)
    just_before = meanwhile(core.engine, "FOR NO KEY UPDATE", lambda: uploads.give_up(core.runtime, KEY, gone))
    with just_before, pytest.raises(Invalid, match="No such upload"):
        name(core, job, gone)
    assert collected(core) == named(core) == {upload}


def test_of_two_that_are_named_at_once_one_is_kept(core, work):
    job = core.held()
    both = [work.upload(job, bytes([n])) for n in range(2)]
    alive = at_once(*(lambda one=one: name(core, job, one) for one in both))
    assert [one.status for one in alive] == ["processing"] * 2
    (kept,) = collected(core)
    assert named(core) == {kept}
    assert saved(core, job) == bytes([both.index(kept)])


def test_an_attempt_that_ends_meanwhile_names_nothing(core, work):
    waiting, before = core.held(), core.held()
    upload, other = work.upload(waiting), work.upload(before)
    with core.locked(waiting.job_id, lambda: name(core, waiting, upload)) as (connection, done):
        connection.exec_driver_sql(
            "UPDATE remote_jobs SET status = 'pending', lease_expires_at = NULL, ack_by = NULL,"
            f" attempt_end = 'released', attempt_ended_at = now() WHERE id = '{waiting.job_id}'"
        )
    assert done.result(60) == "lease_lost"
    with meanwhile(core.engine, "FOR NO KEY UPDATE", lambda: core.result(before)), pytest.raises(Conflict):
        name(core, before, other)
    assert collected(core) == set()


def test_what_is_named_is_named_for_this_attempt_of_this_job_alone(core, work):
    """By the statement itself, as where the attempt ends between the look and the write."""
    job, bystander, another, ended = (core.held() for _ in range(4))
    theirs = work.upload(bystander)
    name(core, bystander, theirs)
    job_log.save(core.runtime, KEY, str(another.job_id), "another's", another.lease_token)
    mine, late = work.upload(job), work.upload(ended)
    core.result(ended)

    def names(job_id, attempt, upload):
        with core.engine.begin() as connection:
            its = {"job_id": str(job_id), "attempt": attempt, "upload": upload}
            return connection.execute(job_log.NAME, its).scalars().all()

    assert names(job.job_id, 2, mine) == names(ended.job_id, 1, late) == names(KEY.key_id, 1, mine) == []
    assert names(job.job_id, 1, mine) == [job.job_id]
    assert named(core) == {mine, theirs}
    assert [row.checkpoint for row in core.sql("SELECT checkpoint FROM job_checkpoints")] == ["another's"]


def test_it_counts_for_its_tenant_and_a_full_quota_refuses_the_next_upload_alone(make_runtime, tmp_path):
    limits = f"upload_bytes={3 * MIB},tenant_kept_bytes={MIB + 4096}"
    core = Core(make_runtime(data_dir=str(tmp_path / "data"), limits=limits))
    work = Work(core)
    job = core.held()
    kept = work.upload(job, b"x" * 5000)
    name(core, job, kept)
    collect.collect(core.runtime)
    assert [tuple(row) for row in core.sql("SELECT bytes, kept FROM upload_usage")] == [(0, 5000)]
    with pytest.raises(TooMany, match="tenant_kept_bytes"):
        work.upload(job)
    assert saved(core, job) == b"x" * 5000
    core.result(job)
    assert collected(core) == set()
    assert [tuple(row) for row in core.sql("SELECT bytes, kept FROM upload_usage")] == [(0, 0)]
