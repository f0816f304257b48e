"""The claim of a named job: who gets it, what it is given again, and what is left for others."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.errors import Forbidden, Invalid, NotFound, Paused, TooMany
from bridge.jobs.claim_named import claim_named
from bridge.queues import Queue
from bridge.workers.pauses import pause
from models.job_state import Priority
from tests.jobs.test_submission import full
from tests.support.client import ok, refused
from tests.support.core import KEY, OTHER_KEY, outcome_of


def named(core, job_id, worker="local", *, key=KEY, lease=60, **said):
    return claim_named(core.runtime, core.of(key), str(job_id), worker, lease=lease, **said)


def test_it_is_a_claim_like_any_other(core):
    job_id = core.create()
    job = named(core, job_id).job
    assert (str(job.job_id), job.attempt, core.status(job_id)) == (job_id, 1, "processing")
    core.heartbeat(job)
    assert core.result(job).status == "completed"
    assert core.hows(job_id) == ["completed"]


def test_its_entry_in_the_mirror_is_gone_whatever_list_age_has_led_it_to(core):
    for priority in Priority:
        job_id = core.create("fallback", priority=str(priority))
        assert core.runtime.mirror.lengths([Queue(core.tenant, "fallback")])[Queue(core.tenant, "fallback")] == 1
        named(core, job_id)
        assert core.runtime.mirror.lengths([Queue(core.tenant, "fallback")])[Queue(core.tenant, "fallback")] == 0


def test_of_many_that_claim_one_job_one_gets_it(core):
    for _ in range(5):
        job_id = core.create()
        with ThreadPoolExecutor(6) as pool:
            by_name = [pool.submit(outcome_of, lambda n=n, j=job_id: named(core, j, f"n{n}")) for n in range(3)]
            by_poll = [pool.submit(core.claim, job_id, f"p{n}") for n in range(3)]
        won = [one.result().job for one in by_name if not isinstance(one.result(), str)]
        won += [one.result() for one in by_poll if one.result() is not None]
        assert len(won) == 1
        assert {one.result() for one in by_name if isinstance(one.result(), str)} <= {"already_claimed", "not_ready"}
        assert core.row(job_id).lease_token == won[0].lease_token


def test_a_repeated_claim_gets_the_same_one_until_it_is_acknowledged(core):
    job_id = core.create()
    first = named(core, job_id, claim_id="c1")
    again = named(core, job_id, claim_id="c1", admit=full)  # a repetition needs no room
    assert (first.again, again.again) == (False, True)
    assert again.job.lease_token == first.job.lease_token
    core.heartbeat(first.job)
    assert outcome_of(lambda: named(core, job_id, claim_id="c1")) == "already_claimed"


def test_the_claim_id_of_another_job_is_refused(core):
    named(core, core.create(), claim_id="c1")
    other = core.create()
    with pytest.raises(Invalid) as refusal:
        named(core, other, claim_id="c1")
    assert "claim_id" in refusal.value.errors
    assert core.status(other) == "pending"


def test_what_may_not_be_claimed_says_why(core):
    held = core.held("w1")
    assert outcome_of(lambda: named(core, held.job_id)) == "already_claimed"
    assert outcome_of(lambda: named(core, held.job_id, "w1", claim_id="c1")) == "already_claimed"
    core.result(held)
    assert outcome_of(lambda: named(core, held.job_id)) == "already_finished"
    later = core.create()
    core.sql("UPDATE remote_jobs SET available_at = now() + interval '1 h' WHERE id = :id", id=later)
    assert outcome_of(lambda: named(core, later)) == "not_ready"
    over = core.create()
    core.age(over, 90000)
    assert outcome_of(lambda: named(core, over)) == "not_ready"
    released = named(core, core.create()).job
    core.release(released)
    assert outcome_of(lambda: named(core, released.job_id)) == "not_ready"
    assert not isinstance(outcome_of(lambda: named(core, released.job_id, key=OTHER_KEY)), str)


def test_keys_tenants_pauses_and_limits_hold(core):
    job_id = core.create("audio")
    with pytest.raises(NotFound):
        named(core, job_id, key=KEY._replace(tenant="elsewhere"))
    with pytest.raises(Forbidden):
        named(core, job_id, key=KEY._replace(content_types=frozenset({"video"})))

    with pytest.raises(TooMany):
        named(core, job_id, admit=full)
    pause(core.runtime, core.tenant, "local", "is mended")
    with pytest.raises(Paused):
        named(core, job_id)
    assert core.row(job_id).attempt == 0
    assert named(core, job_id, "other").job.attempt == 1


def test_over_http_it_is_what_a_poll_gives(client):
    polled = client.post("", client.fields(task_options={"a": 1.50}))
    job_id = ok(polled)["job_id"]
    refused(client.post(f"{job_id}/claim", {"worker_id": "w", "lease": 1}), 422, "validation")
    refused(client.post(f"{job_id}/claim", {"worker_id": ""}), 422, "validation")
    answer = client.post(f"{job_id}/claim", {"worker_id": "local", "lease": 60, "claim_id": "c"})
    job = ok(answer)
    assert answer.headers["X-Job-Status"] == "processing"
    assert '"task_options":{"a":1.5' in answer.text
    assert ok(client.post(f"{job_id}/claim", {"worker_id": "local", "lease": 60, "claim_id": "c"})) == job
    other = client.post(f"{job_id}/claim", {"worker_id": "other"})
    refused(other, 409, "already_claimed")
    assert other.headers["X-Job-Status"] == "processing"
    ok(client.result(job))
    refused(client.post(f"{job_id}/claim", {"worker_id": "other"}), 409, "already_finished")
