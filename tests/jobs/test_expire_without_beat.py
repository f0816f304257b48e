"""The clocks run although no sweep comes: beat, Celery or the broker is away, or the intake floods their queue."""

import pytest
import requests
from sqlalchemy.exc import OperationalError

from bridge.jobs.expire_without_beat import GRACE_SECONDS, ExpiryWithoutBeat
from tests.support.client import ok
from tests.support.cut_off import no_connections
from tests.support.racing import meanwhile
from tests.support.waiting import wait_until

BY_NOW = {
    "unacknowledged": ("pending", None),
    "silent": ("pending", "The lease ran out: no sign of life of the worker for 60 s."),
    "late": ("timeout", "The deadline passed: one attempt may run for 100 s."),
    "unclaimed": ("timeout", "The queue clock ran out: not claimed within 100 s."),
}


@pytest.mark.slow
def test_every_clock_ends_in_time_without_beat_and_without_celery(own_bridge):
    bridge = own_bridge(celery=False, beat=False, api_processes="2", continuation_task="pipeline.receive")
    client = bridge.client()
    given = {"timeout_seconds": 100, "queue_timeout_seconds": 100}
    jobs = {name: client.create(name, **given) for name in BY_NOW}
    for name in ("unacknowledged", "silent", "late"):
        held = client.claim(name, lease=60 if name == "silent" else None)
        if name != "unacknowledged":
            ok(client.heartbeat(held))
    back = ", ".join(f"{clock} = {clock} - interval '106 s'" for clock in ("timeout_at", "lease_expires_at"))
    bridge.sql(f"UPDATE remote_jobs SET {back} WHERE content_type <> 'silent'")
    bridge.sql("UPDATE remote_jobs SET lease_expires_at = now() - interval '6 s' WHERE content_type = 'silent'")

    def states():
        shown = {name: client.job(job_id) for name, job_id in jobs.items()}
        return {name: (job["status"], job["error_message"]) for name, job in shown.items()} == BY_NOW

    wait_until(states, "every clock to end")
    assert [sweep["name"] for sweep in ok(client.get("statistics"))["sweeps"]] == ["end_overdue"], "beat swept nothing"

    def counted():  # each process notes its run when what it ended is committed
        told = requests.get(bridge.url + "/metrics", timeout=30).text
        return 'bridge_sweep_changed_total{sweep="end_overdue"} 4.0' in told

    wait_until(counted, "all four to be counted")


class Clock:
    """The time of a process that tells it when it is asked."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fallback(core, clock):
    """One that has run for longer than its grace."""
    one = ExpiryWithoutBeat(core.runtime, clock)
    clock.now = GRACE_SECONDS
    return one


@pytest.mark.parametrize("which", ["acknowledgement", "lease", "deadline", "queue"])
def test_what_a_sweep_can_still_take_in_time_is_left_to_it(core, fallback, which):
    seconds = 50 if which == "deadline" else 60
    given = {"timeout_seconds": 50 if which == "deadline" else 3600, "queue_timeout_seconds": 60}
    if which == "queue":
        job_id = core.create(**given)
    else:
        job_id = core.held(acknowledge=which != "acknowledgement", **given).job_id
    before = core.status(job_id)
    core.age(job_id, seconds + 0.5)
    fallback.look()
    assert core.status(job_id) == before
    core.age(job_id, 5)
    fallback.look()
    assert core.status(job_id) != before


def test_the_deadline_of_an_attempt_that_nobody_has_acknowledged_is_not_overdue(core, fallback):
    job = core.held(acknowledge=False, timeout_seconds=10)
    core.age(job.job_id, 20)
    fallback.look()
    assert core.sql("SELECT 1 FROM sweeps WHERE name = 'end_overdue'") == [], "no sweep was made in vain"


def test_what_another_process_ends_first_is_not_told_of(core, fallback, capsys):
    job = core.held()
    core.age(job.job_id, 100)
    with meanwhile(core.engine, "FOR UPDATE SKIP LOCKED", core.expire):
        fallback.look()
    assert core.status(job.job_id) == "pending"
    assert core.hows(job.job_id) == ["lease_expired"]
    assert "expiry_fallback_ran" not in capsys.readouterr().out


def test_what_ran_out_while_nobody_could_renew_it_is_ended_half_a_minute_later(core, clock):
    job = core.held()
    core.age(job.job_id, 100)
    fallback = ExpiryWithoutBeat(core.runtime, clock)
    clock.now = GRACE_SECONDS - 1
    fallback.look()
    assert core.status(job.job_id) == "processing", "the process has just started"
    clock.now = GRACE_SECONDS
    with no_connections(core.engine.url), pytest.raises(OperationalError):
        fallback.look()
    clock.now = 2 * GRACE_SECONDS - 1
    fallback.look()
    assert core.status(job.job_id) == "processing", "PostgreSQL was away a moment ago"
    clock.now = 2 * GRACE_SECONDS
    fallback.look()
    assert core.status(job.job_id) == "pending"
