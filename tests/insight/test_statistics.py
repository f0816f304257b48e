"""GET /statistics: counters that agree with the jobs at any moment, whoever is killed, and what else it shows."""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import pytest
import requests
from sqlalchemy import text

from bridge.insight import counters, durations
from bridge.jobs.purge import purge
from tests.support.client import ok
from tests.support.sound import DIFFERENT
from tests.support.waiting import wait_until


def statistics(client):
    return ok(client.get("statistics"))


def kept(core) -> dict[tuple[str, str], int]:
    with core.engine.connect() as connection:
        return {(c.content_type, c.status): c.jobs for c in counters.of_tenant(connection, "default")}


def counted(core) -> dict[tuple[str, str], int]:
    rows = core.sql("SELECT content_type, status, count(*) AS jobs FROM remote_jobs GROUP BY 1, 2")
    return {(row.content_type, row.status): row.jobs for row in rows}


def test_every_change_of_a_job_is_counted_in_its_own_transaction(core):
    job = core.held()
    core.result(job, success=False)
    core.cancel(job.job_id)
    core.restart(job.job_id)
    done = core.held("w2", content_type="video")
    core.result(done)
    core.create()
    assert kept(core) == counted(core) == {("audio", "pending"): 2, ("video", "completed"): 1}


def test_a_change_that_is_rolled_back_is_not_counted(core):
    job_id = core.create()
    with core.engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("DELETE FROM remote_jobs WHERE id = :id"), {"id": job_id})
        transaction.rollback()
    assert kept(core) == {("audio", "pending"): 1}


def test_a_sign_of_life_leaves_nothing_to_fold(core):
    job = core.held()
    counters.fold(core.runtime)
    core.heartbeat(job, progress=0.5)
    assert counters.fold(core.runtime) == 0


def test_folding_changes_no_sum_and_leaves_nothing_over(core):
    for _ in range(5):
        core.held()
    before = kept(core)
    assert counters.fold(core.runtime, batch=3) == 10
    assert kept(core) == before == {("audio", "processing"): 5}
    assert core.sql("SELECT count(*) AS n FROM job_moves")[0].n == 0


def test_a_run_of_folding_is_bounded(core):
    for _ in range(5):
        core.create()
    assert counters.fold(core.runtime, batch=1, rounds=3) == 3
    assert kept(core) == {("audio", "pending"): 5}


def test_folding_beside_changes_and_beside_itself_loses_nothing(core):
    def work(number: int) -> None:
        for _ in range(10):
            core.result(core.held(f"w{number}"))
            counters.fold(core.runtime, batch=3, rounds=2)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert kept(core) == counted(core) == {("audio", "completed"): 60}


def test_purged_jobs_are_counted_no_more(core):
    job = core.held()
    core.result(job)
    core.sql("UPDATE continuations SET next_at = NULL")
    core.age(job.job_id, 40 * 86400)
    assert purge(core.runtime) == 1
    assert kept(core) == {}


def test_the_check_finds_no_difference_where_there_is_none(core):
    core.held()
    counters.fold(core.runtime)
    core.create()
    core.sql("DELETE FROM remote_jobs WHERE id = :id", id=core.create())
    unfolded = core.sql("SELECT * FROM job_moves")
    assert counters.check(core.runtime) == 0
    assert core.sql("SELECT * FROM job_moves") == unfolded
    assert kept(core) == counted(core)


def test_the_check_puts_right_what_was_changed_behind_the_triggers_and_says_so(core, capfd):
    first, second = core.create(), core.create("video")
    counters.fold(core.runtime)
    with core.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM remote_jobs WHERE id = :id"), {"id": first})
        connection.execute(text("UPDATE remote_jobs SET content_type = 'other' WHERE id = :id"), {"id": second})
    assert counters.check(core.runtime) == 3
    assert "job_counter_corrected" in capfd.readouterr().out
    assert kept(core) == counted(core) == {("other", "pending"): 1}
    assert counters.check(core.runtime) == 0


def test_counters_of_what_there_is_none_of_are_forgotten(core):
    core.sql("DELETE FROM remote_jobs WHERE id = :id", id=core.create())
    counters.fold(core.runtime)
    counters.check(core.runtime)
    assert core.sql("SELECT * FROM job_counts") == []


def test_medians_follow_what_was_completed_lately(core):
    for seconds in (10, 20, 1000):
        job = core.held()
        core.result(job)
        core.sql("UPDATE remote_jobs SET started_at = completed_at - make_interval(secs => :s) WHERE id = :id",
                 s=seconds, id=str(job.job_id))  # fmt: skip
    counters.fold(core.runtime)
    assert durations.refresh(core.runtime) == 1
    with core.engine.connect() as connection:
        assert durations.median_seconds(connection, "default", "audio") == 20
        assert durations.median_seconds(connection, "default", "video") is None
        assert durations.expected_seconds(connection, "default", "video") == 900


def test_medians_are_not_computed_again_where_nothing_was_completed(core):
    core.result(core.held())
    counters.fold(core.runtime)
    assert durations.refresh(core.runtime) == 1
    core.sql("UPDATE job_durations SET refreshed_at = refreshed_at + interval '2 seconds'")
    assert durations.refresh(core.runtime) == 0


def test_statistics_count_the_tenants_jobs_by_status_and_content_type(bridge, client):
    for content_type in ("audio", "audio", "video"):
        client.create(content_type)
    ok(client.result(client.claim("video")))
    client.claim("audio")
    shown = statistics(client)
    assert shown["by_status"] == {"pending": 1, "processing": 1, "completed": 1}
    assert shown["by_content_type"] == {"audio": {"pending": 1, "processing": 1}, "video": {"completed": 1}}
    assert statistics(bridge.client())["by_status"] == {}


def test_statistics_tell_how_long_the_oldest_job_that_may_be_claimed_has_waited(bridge, client):
    assert statistics(client)["oldest_pending_seconds"] is None
    client.create(available_at="2099-01-01T00:00:00Z")
    assert statistics(client)["oldest_pending_seconds"] is None
    client.create("video")
    old = client.create(priority="low")
    client.create(priority="high")
    bridge.sql("UPDATE remote_jobs SET queued_at = queued_at - interval '1 hour' WHERE id = :id", id=old)
    shown = statistics(client)
    assert 3600 <= shown["oldest_pending_seconds"] < 3700
    assert shown["oldest_pending_seconds_by_content_type"]["audio"] == shown["oldest_pending_seconds"]
    assert 0 <= shown["oldest_pending_seconds_by_content_type"]["video"] < 100


def test_statistics_count_the_parked_polls_of_all_processes(client):
    with ThreadPoolExecutor(6) as pool:
        polls = [pool.submit(client.poll, "image", f"w{n}", wait=30) for n in range(6)]
        wait_until(lambda: statistics(client)["parked_polls"] == 6, "all parked polls to be counted")
        for _ in polls:
            client.create("image")
        assert all(ok(poll.result())["jobs"] for poll in polls)
    wait_until(lambda: statistics(client)["parked_polls"] == 0, "the parked polls to be gone")


def test_statistics_tell_of_each_sweep_and_its_backlog(client):
    names = {"expire_jobs", "release_due_jobs", "continue_ingestion", "fold_counts", "refresh_medians", "watch_workers"}
    wait_until(lambda: {s["name"] for s in statistics(client)["sweeps"]} >= names, "each sweep to have run")
    by_name = {sweep["name"]: sweep for sweep in statistics(client)["sweeps"]}
    assert all(sweep["age_seconds"] >= 0 and sweep["changed"] >= 0 for sweep in by_name.values())
    assert by_name["expire_jobs"]["backlog"] is not None
    assert by_name["watch_workers"]["backlog"] is None


def test_statistics_show_the_median_durations(bridge, client):
    client.create("web")
    ok(client.result(client.claim("web")))
    shown = wait_until(lambda: statistics(client)["median_durations"].get("web"), "the median to be refreshed")
    assert shown["jobs"] == 1
    assert shown["seconds"] >= 0


@pytest.mark.slow
def test_statistics_agree_with_a_full_count_after_hundreds_of_operations_and_kills(own_bridge):
    bridge = own_bridge(api_processes="2", ack_seconds="1", retry_backoff="base=0,max=0")
    client = bridge.client()
    dice = random.Random(4)
    master = next(child.process.pid for child in bridge.stack.family.children if child.name == "api")
    types = ("audio", "video", "web")

    def kill_one() -> None:
        """Kill an API process or a Celery worker process; its parent starts another one."""
        celery = next(child.process.pid for child in bridge.stack.family.children if child.name == "celery")
        victims = psutil.Process(master).children() + psutil.Process(celery).children()
        with suppress(ProcessLookupError):
            os.kill(dice.choice(victims).pid, signal.SIGKILL)

    held: list[dict[str, Any]] = []
    known: list[str] = []

    def one_step() -> None:
        step = dice.randrange(8)
        if step <= 2:
            known.append(client.create(dice.choice(types)))
        elif step <= 4:
            held.extend(ok(client.poll(",".join(types), f"w{dice.randrange(9)}", max_jobs=3, lease=10))["jobs"])
        elif step == 5 and held:
            client.result(held.pop(dice.randrange(len(held))), success=dice.random() < 0.7)
        elif step == 6 and held:
            client.heartbeat(dice.choice(held))
        elif known:
            client.post(f"{dice.choice(known)}/{dice.choice(['cancel', 'retry'])}")

    for number in range(400):
        if number % 50 == 25:
            kill_one()
        with suppress(requests.RequestException, AssertionError):  # what was killed on the way, or answered 503, 429
            one_step()
        if number % 20 == 0:
            assert bridge.sql(DIFFERENT) == []
    assert bridge.sql("SELECT count(DISTINCT status) AS n FROM remote_jobs")[0].n >= 4
    assert bridge.sql(DIFFERENT) == []
    folded = "SELECT 1 FROM sweeps WHERE name = 'fold_counts' AND ran_at > now() - interval '4 seconds'"
    wait_until(lambda: bridge.sql(folded), "Celery to fold again after the kills")

    def agrees() -> bool:
        """Jobs go on moving by their clocks, so the two may be looked at on either side of a change."""
        shown = wait_until(lambda: client.get("statistics"), "an answer").json()["by_status"]
        rows = bridge.sql("SELECT status, count(*) AS n FROM remote_jobs GROUP BY 1")
        return shown == {row.status: row.n for row in rows}

    wait_until(agrees, "the statistics to agree with a full count")
    assert bridge.sql(DIFFERENT) == []
