"""GET /{id}/explain: why a job is where it is, in fields and in sentences that a person can act on."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from bridge.insight.explain import Facts, starts_at
from bridge.insight.sentences import clocks, sentences, waits_for
from bridge.workers.pauses import Pause
from bridge.workers.roster import Key, WorkerInfo
from bridge.workers.slots import Slots
from tests.support.client import ok
from tests.support.waiting import wait_until

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def explained(client, job_id):
    return ok(client.get(f"{job_id}/explain"))


def said(client, job_id) -> str:
    return " ".join(explained(client, job_id)["sentences"])


def hand(name="gpu-1", seconds_ago=1.0, holds=0, pause=None):
    seen = NOW - timedelta(seconds=seconds_ago)
    return WorkerInfo(name, Key("a key", "jb_12345678"), ("video",), (), seen, holds, (), pause)


def facts(**known):
    job = SimpleNamespace(
        status="pending", content_type="video", priority=1, asked_priority=None, available_at=NOW,
        timeout_at=NOW + timedelta(hours=1), attempt_end=None, retry_count=0, max_retries=3, error_message=None,
        started_at=None, completed_at=None, worker_id=None, attempt=1, acknowledged_at=None, lease_seconds=60,
        progress=None, message=None,
    )  # fmt: skip
    for name in [name for name in known if hasattr(job, name)]:
        setattr(job, name, known.pop(name))
    given = {"jobs_ahead": 0, "expected_seconds": 60.0, **known}
    made = Facts(job, NOW, (), **given)  # type: ignore[arg-type]
    return made._replace(starts_at=starts_at(made))


def text_of(known) -> str:
    return " ".join(sentences(known))


def test_without_a_worker_it_says_so_and_what_to_do():
    known = facts()
    assert waits_for(known) == "worker"
    assert "No worker waits for `video` now or works on a job: start one" in text_of(known)
    assert known.starts_at is None


def test_a_worker_that_was_seen_long_ago_is_named_but_not_counted_on():
    known = facts(accepting=[hand(seconds_ago=1200)])
    assert waits_for(known) == "worker"
    assert known.starts_at is None
    assert "The last one that asked was gpu-1 (key a key, jb_12345678), at 2026-01-01T11:40:00+00:00." in text_of(known)


def test_a_key_that_does_not_allow_the_type_is_named():
    assert "The key of worker gpu-1 (key a key, jb_12345678) does not allow `video`" in text_of(facts(denied=[hand()]))
    assert "No key of this tenant that may work allows `video`" in text_of(facts(some_key_allows=False))


def test_a_paused_worker_is_not_counted_on_and_its_reason_is_told():
    pause = Pause("t", "gpu-1", None, "operator", "disk full.", NOW, None, None)
    known = facts(accepting=[hand(pause=pause)])
    assert waits_for(known) == "worker"
    assert "is paused until it is resumed: disk full." in text_of(known)
    assert "start one" not in text_of(known)


def test_a_worker_that_has_ended_promises_no_start():
    known = facts(accepting=[hand(seconds_ago=30)])
    assert waits_for(known) == "worker"
    assert known.starts_at is None
    assert waits_for(facts(accepting=[hand(seconds_ago=30, holds=1)])) == "pickup"


def test_a_pause_is_named_however_long_its_worker_has_not_asked():
    pause = Pause("t", "gpu-1", None, "bridge", "its last 3 claims were lost.", NOW, NOW, 60.0)
    known = facts(accepting=[hand(seconds_ago=3000, pause=pause)])
    assert "Worker gpu-1 (key a key, jb_12345678) is paused until 2026-01-01T12:00:00+00:00" in text_of(known)
    assert "start one" not in text_of(known)


def test_many_paused_workers_are_counted_not_all_named():
    pause = Pause("t", "w", None, "operator", "out.", NOW, None, None)
    said = sentences(facts(accepting=[hand(f"w{n}", pause=pause) for n in range(5000)]))
    assert len(said) < 20
    assert "4990 more workers are paused" in " ".join(said)


def test_free_slots_are_counted_and_shorten_the_estimate():
    told = hand("a", holds=2)._replace(slots=Slots(2, 6))
    known = facts(accepting=[told, hand("b")], jobs_ahead=6)
    assert "2 workers wait for `video` now, with 7 free slots." in text_of(known)
    assert known.starts_at == NOW
    full = facts(accepting=[hand("a", holds=2)._replace(slots=Slots(2, 0))], jobs_ahead=3)
    assert full.starts_at == NOW + timedelta(minutes=2)


def test_a_worker_without_any_slot_promises_no_start():
    assert facts(accepting=[hand()._replace(slots=Slots(0, 0))], jobs_ahead=1).starts_at is None


def test_idle_workers_start_the_next_job_at_once():
    known = facts(accepting=[hand("a"), hand("b")], jobs_ahead=1)
    assert waits_for(known) == "turn"
    assert known.starts_at == NOW
    assert waits_for(facts(accepting=[hand()])) == "pickup"


def test_the_start_is_estimated_from_the_jobs_ahead_the_workers_and_the_duration():
    busy = [hand("a", holds=1), hand("b", holds=1)]
    assert facts(accepting=busy, jobs_ahead=9).starts_at == NOW + timedelta(minutes=5)
    assert facts(accepting=[*busy, hand("c")], jobs_ahead=9).starts_at == NOW + timedelta(minutes=3)


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [(0, "No job is ahead"), (1, "1 job is ahead"), (7, "7 jobs are ahead"), (1000, "1000+ jobs are ahead")],
)
def test_jobs_ahead_are_counted_to_a_thousand(ahead, sentence):
    assert sentence in text_of(facts(jobs_ahead=ahead))


def test_what_is_not_available_yet_says_until_when_and_why():
    later = NOW + timedelta(seconds=30)
    known = facts(available_at=later)
    assert waits_for(known) == "available_at"
    assert "It may not be claimed until 2026-01-01T12:00:30+00:00, in 30 s, as its" in text_of(known)
    known = facts(available_at=later, attempt_end="failed", retry_count=1)
    assert waits_for(known) == "backoff"
    assert "It waits until 2026-01-01T12:00:30+00:00, in 30 s, before retry 1 of 3 (the backoff)." in text_of(known)


def test_a_job_whose_length_nobody_knows_promises_no_end_and_without_a_lease_no_lease_clock_runs():
    known = facts(status="processing", started_at=NOW, worker_id="w", acknowledged_at=NOW, lease_seconds=None)
    assert [clock.name for clock in clocks(known)] == ["deadline"]
    assert "may be done" not in text_of(known)


def test_an_outcome_that_is_due_again_is_sent_only_once_it_can_have_left_the_queue():
    sent = SimpleNamespace(sent_at=NOW, confirmed_at=None, next_at=NOW)
    assert "again once it can no longer be" in text_of(facts(status="completed", completed_at=NOW, continuation=sent))


def test_without_redis_it_says_that_it_cannot_know():
    known = facts(redis=False)
    assert "Redis does not answer" in text_of(known)
    assert "No worker" not in text_of(known)
    assert (waits_for(known), known.starts_at) == (None, None)


def test_a_pending_job_that_nobody_asks_for(client):
    job_id = client.create("video")
    shown = explained(client, job_id)
    assert (shown["status"], shown["waits_for"], shown["jobs_ahead"]) == ("pending", "worker", 0)
    assert (shown["workers"], shown["estimated_start"], shown["attempts"]) == ([], None, [])
    assert [clock["name"] for clock in shown["clocks"]] == ["queue"]
    assert "No worker waits for `video` now" in " ".join(shown["sentences"])


def test_jobs_ahead_go_by_priority_then_age_within_the_tenant_and_type(bridge, client):
    older = client.create()
    low = client.create(priority="low")
    mine = client.create()
    client.create()
    high = client.create(priority="high")
    client.create(priority="high", available_at="2099-01-01T00:00:00Z")
    client.create("video")
    bridge.client().create()
    ahead = {name: explained(client, job_id)["jobs_ahead"] for name, job_id in
             {"high": high, "older": older, "mine": mine, "low": low}.items()}  # fmt: skip
    assert ahead == {"high": 0, "older": 1, "mine": 2, "low": 4}


def test_more_than_a_thousand_are_not_counted_on(bridge, client):
    first = client.create()
    columns = (
        "tenant, source_file_path, content_type, task_options, priority, status, created_at, queued_at, available_at"
    )
    more = "mirrored, timeout_at, timeout_seconds, queue_timeout_seconds, max_retries"
    bridge.sql(
        f"INSERT INTO remote_jobs (id, ingestion_task_id, {columns}, {more})"
        f" SELECT gen_random_uuid(), 'copy', {columns}, {more} FROM remote_jobs, generate_series(1, 1200)"
        " WHERE id = :id",
        id=first,
    )
    last = client.create()
    shown = explained(client, last)
    assert (shown["jobs_ahead"], shown["jobs_ahead_or_more"]) == (1000, True)
    assert "1000+ jobs are ahead of it." in shown["sentences"]


def test_the_workers_that_accept_its_type_are_shown_with_what_they_hold(bridge, client):
    client.create("video")
    mine = client.create("video")
    claimed = client.claim("video,audio", "gpu-1")
    limited = bridge.client(client.tenant, ("work",), content_types=["audio"])
    ok(limited.poll("audio,video", "cpu-1"))
    shown = wait_until(
        lambda: (s := explained(client, mine))["estimated_start"] and "cpu-1" in str(s) and s, "both to be seen"
    )
    [worker] = shown["workers"]
    assert (worker["worker_id"], worker["job_ids"]) == ("gpu-1", [claimed["job_id"]])
    assert shown["waits_for"] == "pickup"
    sentences = " ".join(shown["sentences"])
    assert "Held by workers that take `video`: 1 job." in sentences
    assert "The key of worker cpu-1" in sentences
    assert "does not allow `video`" in sentences
    start = datetime.fromisoformat(shown["estimated_start"])
    assert timedelta(minutes=10) < start - datetime.now(UTC) < timedelta(minutes=16)


def test_a_job_that_waits_for_its_retry_says_what_its_last_attempt_came_to(client):
    job_id = client.create()
    ok(client.result(client.claim(), success=False, error_message="no codec"))
    shown = explained(client, job_id)
    assert shown["waits_for"] == "backoff"
    assert [(attempt["how"], attempt["why"]) for attempt in shown["attempts"]] == [("failed", "no codec")]
    sentences = " ".join(shown["sentences"])
    assert "before retry 1 of 3" in sentences
    assert "by worker w1, ended: failed" in sentences
    assert "no codec" in sentences


def test_a_job_in_hand_names_its_worker_and_the_clocks_that_run(client):
    job_id = client.create()
    job = client.claim(worker_id="gpu-9", lease=60)
    shown = explained(client, job_id)
    assert [clock["name"] for clock in shown["clocks"]] == ["acknowledgement", "deadline"]
    assert "not acknowledged" in " ".join(shown["sentences"])
    ok(client.heartbeat(job, progress=0.25, message="a quarter"))
    shown = explained(client, job_id)
    assert [clock["name"] for clock in shown["clocks"]] == ["lease", "deadline"]
    assert [worker["worker_id"] for worker in shown["workers"]] == ["gpu-9"]
    assert shown["estimated_completion"] is not None
    assert "The worker reports 25%: a quarter." in shown["sentences"]


def test_a_job_names_its_worker_however_many_that_one_holds(client):
    jobs = [client.fields("image", source_file_path="") for _ in range(102)]
    source = client.source()
    ok(client.post("batch", {"jobs": [{**job, "source_file_path": source} for job in jobs]}))
    held = [job for _ in range(2) for job in ok(client.poll("image", wait=20, lease=60, max_jobs=100))["jobs"]]
    assert len(held) == 102
    other = held[-1]["job_id"]
    [worker] = explained(client, other)["workers"]
    assert (worker["worker_id"], worker["jobs_in_hand"], other in worker["job_ids"]) == ("w1", 102, False)


def test_a_finished_job_says_what_ended_it_and_what_became_of_its_continuation(bridge, client):
    job_id = client.create(max_retries=0)
    ok(client.result(client.claim(), success=False, error_message="no codec"))
    handed = lambda: "was handed over at" in said(client, job_id)  # noqa: E731
    wait_until(handed, "the continuation to be handed over")
    shown = explained(client, job_id)
    assert any(line.startswith("It ended as failed at") and "no codec" in line for line in shown["sentences"])
    assert (shown["clocks"], shown["waits_for"], shown["error_message"]) == ([], None, "no codec")
    assert shown["continuation"]["sent_at"] is not None
    bridge.sql("UPDATE continuations SET confirmed_at = now() WHERE job_id = :id", id=job_id)
    assert "The pipeline confirmed the continuation" in said(client, job_id)
    bridge.sql("UPDATE continuations SET confirmed_at = NULL, next_at = now() + interval '1 hour' WHERE job_id = :id",
               id=job_id)  # fmt: skip
    assert "is not confirmed; it is sent again at " in said(client, job_id)
    bridge.sql("UPDATE continuations SET confirmed_at = NULL, sent_at = NULL, tries = 2, last_error = 'no broker',"
               " next_at = now() + interval '1 hour' WHERE job_id = :id", id=job_id)  # fmt: skip
    assert "The continuation was not handed over yet (2 tries): no broker." in said(client, job_id)
    bridge.sql("DELETE FROM continuations WHERE job_id = :id", id=job_id)
    assert "No continuation was recorded" in said(client, job_id)


def test_a_tiny_progress_leads_to_no_date_beyond_the_calendar(client):
    job_id = client.create()
    ok(client.heartbeat(client.claim(), progress=5e-324))
    assert explained(client, job_id)["estimated_completion"] is not None
    assert ok(client.get(f"{job_id}/status"))["estimated_completion"] is not None
