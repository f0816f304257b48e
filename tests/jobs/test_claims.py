"""Claims: one winner an ID, what a claim_id is given again, whom a released job is offered to, and in which order."""

import pytest
from sqlalchemy import text

from bridge.jobs.claim import Claimant, claim, replay
from tests.support.core import KEY, OTHER_KEY, Core


def by(worker, claim_id=None, key=KEY):
    return Claimant(key.key_id, worker, 60, claim_id)


def offer(core, *offers):
    """Offer each job ID to its claimant, in one statement."""
    with core.engine.begin() as connection:
        return claim(connection, offers, 60)


def replayed(core, who):
    with core.engine.connect() as connection:
        return replay(connection, [who])


def test_an_id_that_is_offered_twice_is_claimed_once(core):
    job_id = core.create()
    outcome = offer(core, (job_id, by("w1")), (job_id, by("w2")))
    assert len(outcome.claimed) == 1
    assert core.row(job_id).attempt == 1


def test_the_same_claim_id_is_given_the_same_jobs_and_tokens_and_nothing_new(core):
    first, second, third = core.create(), core.create(), core.create()
    given = offer(core, (first, by("w1", "c1")), (second, by("w1", "c1"))).claimed
    again = offer(core, (third, by("w1", "c1")), (third, by("w2", "c2")))
    assert {job.lease_token for job in again.again[0]} == {job.lease_token for job in given.values()}
    assert [str(job.job_id) for job in again.claimed.values()] == [third]
    assert core.row(third).worker_id == "w2"


@pytest.mark.parametrize(
    ("verb", "status"), [(Core.heartbeat, "processing"), (Core.release, "pending"), (Core.result, "completed")]
)
def test_the_same_claim_id_is_given_nothing_again_and_claims_anew_once_its_job_is_acknowledged_or_over(
    core, verb, status
):
    job = core.claim(core.create(), claim_id="c1")
    verb(core, job)
    assert replayed(core, by("w1", "c1")) == {}
    other = core.create("video")
    outcome = offer(core, (other, by("w1", "c1")))
    assert [str(job.job_id) for job in outcome.claimed.values()] == [other]
    assert core.status(job.job_id) == status


def test_what_one_claim_is_given_again_keeps_nothing_from_others(core):
    core.claim(core.create(), claim_id="c1")
    ids = [core.create() for _ in range(4)]
    whos = [by("w1", "c1"), by("w1", "c1", OTHER_KEY), by("w2", "c1"), by("w1", "c2")]
    outcome = offer(core, *zip(ids, whos, strict=True))
    assert {str(job.job_id) for job in outcome.claimed.values()} == set(ids[1:])
    assert set(outcome.again) == {0}


def test_a_claim_id_is_its_workers_alone(core):
    job_id = core.create()
    core.claim(job_id, "w1", claim_id="c1")
    assert [str(job.job_id) for job in replayed(core, by("w1", "c1"))[0]] == [job_id]
    for worker, claim_id, key in [("w2", "c1", KEY), ("w1", "c1", OTHER_KEY), ("w1", "c2", KEY)]:
        assert replayed(core, by(worker, claim_id, key)) == {}
        assert core.claim(core.create(), worker, key=key, claim_id=claim_id) is not None


def test_a_released_job_is_offered_to_others_at_once_and_to_its_worker_after_ten_seconds(core):
    job = core.held("w1")
    core.release(job)
    outcome = offer(core, (str(job.job_id), by("w1")))
    assert (outcome.claimed, outcome.withheld) == ({}, {0})
    core.age(job.job_id, 10)
    assert core.claim(str(job.job_id), "w1").attempt == 2
    core.release(core.held("w1", content_type="video"))
    assert core.claim(core.next("video")[0], "w2").attempt == 2


def test_the_same_worker_name_of_another_key_is_another_worker(core):
    job = core.held("w1")
    core.release(job)
    assert core.claim(str(job.job_id), "w1", key=OTHER_KEY) is not None


def test_only_a_release_is_withheld(core):
    job = core.held("w1", acknowledge=False)
    core.expire_after(job.job_id)
    assert core.claim(str(job.job_id), "w1") is not None


def test_the_head_is_priority_then_age(core):
    low = core.create(priority="low")
    first, second = core.create(), core.create()
    high = core.create(priority="high")
    core.age(second, 100)
    assert core.next() == [high, second, first, low]


def test_a_retry_is_a_new_arrival_and_a_return_keeps_its_age(core):
    retried, returned, third = core.create(), core.create(), core.create()
    core.result(core.claim(retried), success=False)
    core.release(core.claim(returned))
    for job_id, seconds in ((returned, 30), (third, 20), (retried, 12)):
        core.age(job_id, seconds)
    assert core.next() == [returned, third, retried]


def test_a_claim_takes_over_nothing_of_the_attempt_before(core):
    job = core.held("w1")
    core.heartbeat(job, progress=0.9, message="nearly")
    core.release(job)
    core.claim(str(job.job_id), "w2", lease=None, claim_id=None)
    row = core.row(job.job_id)
    assert (row.progress, row.message, row.acknowledged_at, row.lease_seconds, row.claim_id) == (None,) * 5
    assert (row.attempt_end, row.attempt_ended_at) == (None, None)


def test_a_claimed_job_of_another_priority_or_type_is_not_next(core):
    core.held()
    core.create("video")
    assert core.next() == []


def test_a_worker_gets_no_job_of_a_type_that_it_does_not_take(core):
    audio, video = core.create(), core.create("video")
    who = by("w1")._replace(content_types="web,video")
    outcome = offer(core, (audio, who), (video, who))
    assert [str(job.job_id) for job in outcome.claimed.values()] == [video]


def test_a_queue_is_its_tenants_alone(core):
    Core(core.runtime, "other").create()
    mine = core.create()
    assert core.next() == [mine]


def test_a_row_that_somebody_is_changing_is_passed_over_and_told_from_one_that_is_gone(core):
    busy, free, gone = core.create(), core.create(), str(core.held().job_id)
    with core.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM remote_jobs WHERE id = '{busy}' FOR UPDATE")
        assert core.claim(busy) is None
        assert core.next() == [free]
        outcome = offer(core, (busy, by("w1")), (gone, by("w1")))
    assert (outcome.claimed, outcome.busy) == ({}, {0})


def test_an_id_of_another_tenant_is_not_claimed(core):
    """What the mirror holds is a hint: who can write into Redis steals no job."""
    job_id = core.create()
    assert not offer(core, (job_id, by("w1")._replace(tenant="another"))).claimed
    assert core.status(job_id) == "pending"


@pytest.mark.parametrize("first", [True, False])
def test_an_id_in_two_lists_goes_to_the_one_that_may_have_it(core, first):
    """One may be another tenant's list, or another type's: who can write into Redis reads no job."""
    job_id = core.create("audio")
    may = by("w1")._replace(content_types="audio")
    others = [may._replace(tenant="another", worker_id="w2"), may._replace(content_types="video", worker_id="w3")]
    whos = [may, *others] if first else [*others, may]
    outcome = offer(core, *((job_id, who) for who in whos))
    assert list(outcome.claimed) == [whos.index(may)]
    assert core.row(job_id).worker_id == "w1"


@pytest.mark.parametrize("first", [True, False])
def test_a_job_that_its_worker_has_released_goes_to_the_other_that_is_offered_it(core, first):
    job = core.held()
    core.release(job)
    offers = [(str(job.job_id), by("w1")), (str(job.job_id), by("w2"))]
    outcome = offer(core, *(offers if first else reversed(offers)))
    assert (list(outcome.claimed), outcome.withheld) == ([1 if first else 0], set())
    assert core.row(job.job_id).worker_id == "w2"


def test_a_claim_takes_no_more_than_fits_and_leaves_the_rest_free(core):
    large = {"text": "x" * 17 * 1024 * 1024}
    job_ids = [core.create(task_options=large) for _ in range(3)]
    outcome = offer(core, *((job_id, by(f"w{n}")) for n, job_id in enumerate(job_ids)))
    assert (set(outcome.claimed), outcome.busy) == ({0, 1}, {2}), "the one that reaches 32 MiB still fits"
    assert core.status(job_ids[2]) == "pending"
    assert core.claim(job_ids[2]).task_options == outcome.claimed[0].task_options


@pytest.mark.parametrize("avoided", ["nestloop", "hashjoin", "mergejoin"])
def test_claimed_jobs_come_in_the_order_of_their_offers_whatever_the_plan(core, avoided):
    job_ids = [core.create() for _ in range(12)][::-1]
    offers = [(job_id, by(f"w{n}")) for n, job_id in enumerate(job_ids)]
    with core.engine.begin() as connection:
        connection.execute(text(f"SET LOCAL enable_{avoided} = off"))
        fates = claim(connection, offers, 60)
    assert [(n, str(job.job_id)) for n, job in fates.claimed.items()] == [*enumerate(job_ids)]
