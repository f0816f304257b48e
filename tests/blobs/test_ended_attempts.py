"""An upload of an attempt goes once nothing can name it any more, and before that never."""

import pytest

from bridge.blobs import collect, uploads
from bridge.jobs import job_log
from tests.support.core import KEY
from tests.support.of_an_attempt import Work

ENDS = {
    "completed": lambda core, job: core.result(job),
    "failed, to be retried": lambda core, job: core.result(job, success=False),
    "failed": lambda core, job: core.result(job, success=False, retryable=False),
    "released": lambda core, job: core.release(job),
    "cancelled": lambda core, job: core.cancel(job.job_id),
    "beyond its deadline": lambda core, job: (core.age(job.job_id, 10**6), core.expire()),
    "retried by an operator": lambda core, job: (core.cancel(job.job_id), core.restart(job.job_id)),
    "deleted": lambda core, job: core.sql("DELETE FROM remote_jobs WHERE id = :id", id=str(job.job_id)),
}


@pytest.fixture
def work(core):
    return Work(core)


def left(core, batch=200):
    collect.collect(core.runtime, batch=batch)
    return {str(row.id) for row in core.sql("SELECT id FROM uploads")}


def lapse(core, job):
    core.age(job.job_id, 61)
    core.expire()


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_what_an_attempt_did_not_name_goes_when_it_has_ended(core, work, end):
    job, goes_on = core.held(), core.held()
    upload, theirs, producers = work.upload(job), work.upload(goes_on), work.upload()
    assert left(core) == {upload, theirs, producers}
    end(core, job)
    assert left(core) == {theirs, producers}
    [used] = core.sql("SELECT bytes FROM upload_usage")
    assert used.bytes == 2 * uploads.LEAST_BYTES


def test_what_a_late_result_may_name_stays_until_another_attempt_begins(core, work):
    named, lost = core.held(), core.held()
    kept, gone = work.upload(named), work.upload(lost)
    for job in (named, lost):
        lapse(core, job)
    assert left(core) == {kept, gone}
    assert work.submit(named, artifacts=[{"name": "a", "upload": kept}]) == "completed"
    core.age(lost.job_id, 60)
    again = core.claim(str(lost.job_id), "w2", acknowledge=True)
    assert again is not None
    mine = work.upload(again)
    assert left(core) == {kept, mine}


def test_a_checkpoint_and_the_files_of_a_result_stay(core, work):
    job = core.held()
    checkpoint, other = work.upload(job), work.upload(job)
    job_log.save_upload(core.runtime, KEY, str(job.job_id), checkpoint, job.lease_token)
    core.release(job)
    assert left(core) == {checkpoint}
    again = core.claim(str(job.job_id), "w2", acknowledge=True)
    assert again is not None
    artifact, other = work.upload(again), work.upload(again)
    assert work.submit(again, artifacts=[{"name": "a", "upload": artifact}]) == "completed"
    assert left(core) == {artifact}, other
    assert [row.expires_at for row in core.sql("SELECT expires_at FROM uploads")] == [None]


def test_the_uploads_of_many_jobs_are_looked_at_a_page_at_a_time(core, work):
    jobs = [core.held() for _ in range(3)]
    pages = {job.job_id: {work.upload(job, bytes([n])) for n in range(12)} for job in jobs}
    core.release(jobs[1])
    assert left(core, batch=1) == pages[jobs[0].job_id] | pages[jobs[2].job_id]
