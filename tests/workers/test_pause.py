"""Workers that are given nothing: paused by an operator, or by the bridge because they are in trouble."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from bridge.errors import Invalid
from bridge.workers.pauses import now_paused, pause, resume
from bridge.workers.quarantine import watch
from tests.support.client import ok, refused
from tests.support.core import KEY, OTHER_KEY
from tests.support.waiting import wait_until

WORKERS = "/api/v1/workers"


def paused_workers(core) -> list[tuple[str, str]]:
    with core.engine.connect() as connection:
        return [(one.worker_id, one.by) for one in now_paused(connection)]


def seconds_left(core) -> float:
    with core.engine.connect() as connection:
        [one] = now_paused(connection)
    assert one.seconds_left is not None
    return one.seconds_left


def lose(core, worker="w1", **fields):
    job = core.held(worker, **fields)
    core.age(job.job_id, 61)
    core.expire()
    return job


def fail(core, worker="w1", **said):
    job = core.held(worker)
    core.result(job, success=False, **said)
    return job


def miss(core, worker="w1"):
    job = core.held(worker, acknowledge=False)
    core.age(job.job_id, 61)
    core.expire()
    core.cancel(job.job_id)


def over(core):
    """The pause ends, and what went before it lies a while back."""
    core.sql("UPDATE worker_pauses SET until = now(), paused_at = paused_at - interval '1 hour'")


@pytest.mark.parametrize("bad", [lose, fail, miss])
def test_three_bad_claims_in_a_row_pause_a_worker(core, bad):
    bad(core)
    bad(core)
    assert watch(core.runtime) == 0
    bad(core)
    assert watch(core.runtime) == 1
    assert paused_workers(core) == [("w1", "bridge")]
    assert 28 < seconds_left(core) <= 30


def test_bad_claims_of_each_kind_count_together_and_those_of_others_do_not(core):
    lose(core)
    fail(core)
    lose(core, "w2")
    core.result(core.held("w1"), key=KEY)
    assert watch(core.runtime) == 0
    fail(core)
    miss(core)
    lose(core)
    watch(core.runtime)
    assert paused_workers(core) == [("w1", "bridge")]


def test_a_failure_after_some_work_is_no_trouble(core):
    for _ in range(3):
        job = core.held()
        core.age(job.job_id, 5)
        core.result(job, success=False)
    assert watch(core.runtime) == 0


def test_what_a_worker_calls_not_retryable_is_the_files_fault_and_passed_over(core):
    for _ in range(5):
        fail(core, retryable=False)
    assert watch(core.runtime) == 0
    fail(core)
    fail(core, retryable=False)
    lose(core)
    assert watch(core.runtime) == 0, "two bad claims, with a bad file between"
    fail(core, retryable=False)
    fail(core)
    assert watch(core.runtime) == 1
    assert paused_workers(core) == [("w1", "bridge")]


def test_a_late_failure_that_is_not_retryable_takes_the_loss_back(core):
    fail(core)
    fail(core)
    job = lose(core)
    core.result(job, success=False, retryable=False)
    assert watch(core.runtime) == 0


def test_released_claims_are_no_trouble(core):
    for _ in range(3):
        core.release(core.held())
    assert watch(core.runtime) == 0


def test_one_job_that_fails_again_and_again_is_not_held_against_its_worker(core):
    job_id = core.create(max_retries=9)
    for _ in range(4):
        core.age(job_id, 5000)
        core.result(core.claim(job_id), success=False)
    assert watch(core.runtime) == 0


def test_pauses_grow_until_a_success(core):
    for _ in range(3):
        fail(core)
    watch(core.runtime)
    for seconds in (60, 120, 240):
        over(core)
        assert watch(core.runtime) == 0, "what was claimed before the pause ended does not count again"
        fail(core)
        watch(core.runtime)
        assert seconds - 2 < seconds_left(core) <= seconds
    core.sql("UPDATE worker_pauses SET in_a_row = 50, until = now()")
    fail(core)
    watch(core.runtime)
    assert 3595 < seconds_left(core) <= 3600
    core.result(core.held())
    assert watch(core.runtime) == 1
    assert core.sql("SELECT * FROM worker_pauses") == []


def test_a_success_of_a_job_in_hand_ends_the_pause(core):
    job = core.held()
    for _ in range(3):
        fail(core)
    watch(core.runtime)
    core.result(job)
    watch(core.runtime)
    assert paused_workers(core) == []
    assert watch(core.runtime) == 0


def test_a_late_success_ends_the_pause(core):
    job = lose(core)
    lose(core)
    lose(core)
    watch(core.runtime)
    assert paused_workers(core) == [("w1", "bridge")]
    core.result(job)
    watch(core.runtime)
    assert paused_workers(core) == []
    assert watch(core.runtime) == 0


def test_a_late_success_of_whatever_age_is_the_end_of_a_streak(core):
    job = lose(core)
    core.age(job.job_id, 50)
    lose(core)
    miss(core)
    lose(core)
    core.result(job)
    assert watch(core.runtime) == 0
    lose(core)
    lose(core)
    assert watch(core.runtime) == 0
    lose(core)
    assert watch(core.runtime) == 1


def test_the_trouble_of_one_key_is_not_the_others(core):
    for _ in range(3):
        job = core.claim(core.create(), key=OTHER_KEY)
        core.result(job, key=OTHER_KEY, success=False)
    watch(core.runtime)
    with core.engine.connect() as connection:
        [one] = now_paused(connection)
    assert one.covers(OTHER_KEY.key_id)
    assert not one.covers(KEY.key_id)


def test_a_pause_by_an_operator_ends_by_itself_or_by_a_resume(core):
    pause(core.runtime, "default", "w1", "disk full")
    pause(core.runtime, "default", "w2", "restart", 60)
    assert paused_workers(core) == [("w1", "operator"), ("w2", "operator")]
    core.sql("UPDATE worker_pauses SET until = now() WHERE worker_id = 'w2'")
    resume(core.runtime, "default", "w1")
    assert paused_workers(core) == []
    watch(core.runtime)
    assert core.sql("SELECT * FROM worker_pauses") == []


def test_a_repeated_pause_replaces_reason_and_end(core):
    pause(core.runtime, "default", "w1", "first", 60)
    pause(core.runtime, "default", "w1", "second")
    with core.engine.connect() as connection:
        assert [(one.reason, one.until) for one in now_paused(connection)] == [("second", None)]


def test_a_resume_ends_a_pause_by_the_bridge_and_does_not_hold_the_past_against_the_worker(core):
    for _ in range(3):
        fail(core)
    watch(core.runtime)
    resume(core.runtime, "default", "w1")
    assert paused_workers(core) == []
    assert watch(core.runtime) == 0
    fail(core)
    watch(core.runtime)
    assert 28 < seconds_left(core) <= 30, "the first pause after a resume is a short one"


def test_a_pause_for_an_unknown_key_is_refused(core):
    with pytest.raises(Invalid):
        pause(core.runtime, "default", "w1", "why", None, "jb_00000000")


def test_a_success_does_not_end_a_pause_by_an_operator(core):
    job = core.held()
    pause(core.runtime, "default", "w1", "why")
    core.result(job)
    watch(core.runtime)
    assert paused_workers(core) == [("w1", "operator")]


# Over HTTP, in two API processes.


def pausing(client, worker_id="w1", **body):
    return ok(client.post(f"{WORKERS}/{worker_id}/pause", {"reason": "disk full", **body}))


def told(client, worker_id="w1", **query):
    """Waits until a poll is refused; every API process knows within a second."""

    def answers() -> list | None:
        polls = [client.poll("image", worker_id, **query) for _ in range(4)]
        return polls if all(poll.status_code == 429 for poll in polls) else None

    polls = wait_until(answers, "the pause to be felt")
    return [refused(poll, 429, "paused") for poll in polls], polls[0].headers["Retry-After"]


def test_a_paused_worker_is_told_why_and_when_to_ask_again(client):
    assert pausing(client) == {"worker_id": "w1", "paused": True, "until": None}
    problems, retry_after = told(client)
    client.create("image")
    assert all("disk full" in problem["detail"] for problem in problems)
    assert retry_after == "10"
    assert ok(client.poll("image", "w2"))["jobs"]


def test_a_pause_with_an_end_tells_the_rest_of_it(client):
    assert pausing(client, seconds=500)["until"] is not None
    _, retry_after = told(client)
    assert 450 < int(retry_after) <= 500


def test_parked_polls_of_a_paused_worker_are_turned_away_in_every_process(client):
    with ThreadPoolExecutor(8) as pool:
        mine = [pool.submit(client.poll, "image", "w1", wait=60) for _ in range(6)]
        other = pool.submit(client.poll, "image", "w2", wait=60)
        parked = lambda: ok(client.get("statistics"))["parked_polls"] == 7  # noqa: E731
        wait_until(parked, "all of them to wait")
        pausing(client)
        for poll in mine:
            assert "disk full" in refused(poll.result(20), 429, "paused")["detail"]
        client.create("image")
        assert ok(other.result(20))["jobs"]


def test_a_resumed_worker_gets_jobs_again(client):
    pausing(client)
    told(client)
    job_id = client.create("image")
    assert ok(client.post(f"{WORKERS}/w1/resume"))["paused"] is False
    wait_until(lambda: client.poll("image", "w1", wait=1).status_code == 200, "the resume to be felt")
    assert client.status(job_id) == "processing"
    assert ok(client.post(f"{WORKERS}/w1/resume"))["paused"] is False, "again is well"


def test_a_pause_covers_all_keys_of_the_tenant_or_the_one_that_is_named(bridge, client):
    second = bridge.client(client.tenant)
    stranger = bridge.client()
    pausing(client, key=second.key[: len("jb_00000000")])
    told(second)
    assert client.poll("image").status_code == 200
    pausing(client)
    told(client)
    assert stranger.poll("image").status_code == 200


def test_a_worker_keeps_what_it_holds_and_may_finish_it(client):
    client.create("image")
    job = client.claim("image")
    pausing(client)
    told(client)
    ok(client.heartbeat(job))
    ok(client.result(job))


def test_a_paused_worker_that_repeats_its_claim_gets_its_jobs_and_nothing_new(client):
    client.create("image")
    first = ok(client.poll("image", wait=20, lease=60, claim_id="c1"))
    pausing(client)
    told(client)
    other = client.create("image")
    for wait in (0, 30, None):
        assert ok(client.poll("image", wait=wait, lease=60, claim_id="c1")) == first
    for claim_id in ("c2", None):
        refused(client.poll("image", claim_id=claim_id, wait=30), 429, "paused")
    ok(client.heartbeat(first["jobs"][0]))
    refused(client.poll("image", wait=30, lease=60, claim_id="c1"), 429, "paused")
    assert client.claim("image", "w2")["job_id"] == other


@pytest.mark.parametrize("worker_id", ["a%00b", "x" * 256])
def test_what_no_poll_may_name_is_no_worker(client, worker_id):
    for verb in ("pause", "resume"):
        problem = refused(client.post(f"/api/v1/workers/{worker_id}/{verb}", {"reason": "why"}), 422, "validation")
        assert set(problem["errors"]) <= {"worker_id", "reason"}


def test_a_worker_id_with_a_slash_and_a_space_can_be_paused(client):
    pausing(client, "gpu%2F1%20a")
    told(client, "gpu/1 a")


def test_workers_shows_the_pause_even_of_a_worker_that_was_never_seen(client):
    pausing(client, "w7", seconds=60)
    [worker] = [one for one in ok(client.get(WORKERS))["workers"] if one["worker_id"] == "w7"]
    assert worker["last_seen"] is None
    assert (worker["paused"]["by"], worker["paused"]["reason"]) == ("operator", "disk full")


def test_pausing_is_for_admins_and_its_body_is_checked(bridge, client):
    refused(bridge.client(scopes=("read", "submit", "work")).post(f"{WORKERS}/w1/pause", {"reason": "x"}), 403)
    refused(bridge.client(scopes=("read", "submit", "work")).post(f"{WORKERS}/w1/resume"), 403)
    for body in ({}, {"reason": ""}, {"reason": "x" * 501}, {"reason": "x", "seconds": "5"}, {"reason": "x", "a": 1}):
        refused(client.post(f"{WORKERS}/w1/pause", body), 422, "validation")
    refused(client.post(f"{WORKERS}/w1/pause", {"reason": "x", "key": "jb_nobody"}), 422, "validation")


def test_a_worker_that_fails_at_once_three_times_is_paused_and_a_success_ends_it(client):
    for _ in range(3):
        client.create("image")
    kept = client.create("video")
    job = client.claim("video", "w1")
    assert job["job_id"] == kept
    for _ in range(3):
        ok(client.result(client.claim("image", "w1"), success=False))
    problems, _ = told(client)
    assert "failed at once" in problems[0]["detail"]
    ok(client.result(job))
    wait_until(lambda: client.poll("image", "w1").status_code == 200, "the success to end the pause")


def test_a_pause_survives_the_loss_of_redis(own_bridge, redis):
    bridge = own_bridge(beat=False, celery=False)
    client = bridge.client()
    pausing(client)
    told(client)
    with type(redis).from_url(bridge.settings.redis_url) as its:
        its.flushdb()
    told(client)
    bridge.stack.family.children[0].process.send_signal(1)  # gunicorn starts its processes anew
    told(client)


@pytest.mark.parametrize("name", ["two\r\nlines\u2028", "/slash", "a//b", "ä ?#%"])
def test_a_worker_is_paused_and_resumed_whatever_its_id(client, name):
    path = f"{WORKERS}/{quote(name, safe='')}"
    assert ok(client.post(f"{path}/pause", {"reason": "dust"}))["worker_id"] == name
    assert ok(client.post(f"{path}/resume"))["worker_id"] == name
