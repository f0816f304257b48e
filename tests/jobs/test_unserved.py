"""Jobs that nobody asks for: told once, as an outcome, while they wait on."""

import pytest

from bridge.jobs.fields import CreateFields, fingerprint
from bridge.jobs.unserved import note_asked, tell_unserved
from bridge.queues import Queue
from tests.jobs.test_results import kwargs_of
from tests.support.client import ok, refused
from tests.support.core import Core
from tests.support.waiting import wait_until


def waiting(core, seconds=100, **fields):
    """Return a job that has waited that long, with `unserved_after_seconds` 60."""
    job_id = core.create(unserved_after_seconds=60, **fields)
    core.age(job_id, seconds)
    return job_id


def told(core, job_id):
    return [(outcome.n, outcome.kwargs["status"]) for outcome in core.outcomes(job_id)]


def test_a_job_that_nobody_asked_for_is_told_once_and_waits_on(core):
    job_id = waiting(core, task_options={"a": 1.5})
    early = core.create(unserved_after_seconds=60)
    silent = core.create()
    core.age(silent, 100)
    assert tell_unserved(core.runtime) == 1
    [outcome] = core.outcomes(job_id)
    why = "No worker has asked for this content type for 60 s."
    said = {"status": "unserved", "error_message": why, "task_options": {"a": 1.5}, "n": 1}
    assert outcome.kwargs == kwargs_of(core, job_id, **said)
    assert (outcome.state, core.status(job_id)) == ("waiting", "pending")
    assert told(core, early) == told(core, silent) == []
    core.age(job_id, 1000)
    assert tell_unserved(core.runtime) == 0


def test_the_outcome_after_it_is_the_second(core):
    job_id = waiting(core)
    tell_unserved(core.runtime)
    assert core.result(core.claim(job_id)).status == "completed"
    assert told(core, job_id) == [(1, "unserved"), (2, "completed")]


def test_while_workers_ask_for_its_type_it_is_not_told_and_later_it_is(core):
    asked, other = waiting(core, content_type="asked"), waiting(core, content_type="other")
    note_asked(core.runtime, [Queue(core.tenant, "asked"), Queue(core.tenant, "unheard"), Queue("elsewhere", "other")])
    assert tell_unserved(core.runtime) == 1
    assert (told(core, asked), told(core, other)) == ([], [(1, "unserved")])
    core.sql("UPDATE queue_asks SET asked_at = asked_at - interval '59 s'")
    core.age(asked, 59)
    assert tell_unserved(core.runtime) == 0
    core.sql("UPDATE queue_asks SET asked_at = asked_at - interval '2 s'")
    core.age(asked, 2)
    assert tell_unserved(core.runtime) == 1


def test_what_is_asked_for_is_written_only_where_it_matters_and_forgotten(core):
    job_id = waiting(core)
    queues = [Queue(core.tenant, "audio"), Queue(core.tenant, "x" * 50), Queue("nobody", "audio")]
    note_asked(core.runtime, queues)
    assert [(row.tenant, row.content_type) for row in core.sql("SELECT * FROM queue_asks")] == [(core.tenant, "audio")]
    core.sql("UPDATE queue_asks SET asked_at = asked_at - interval '2 days'")
    tell_unserved(core.runtime)
    assert told(core, job_id) == [(1, "unserved")]
    assert core.sql("SELECT * FROM queue_asks") == []
    note_asked(core.runtime, queues)
    assert core.sql("SELECT * FROM queue_asks") == []


@pytest.mark.parametrize("ended", [False, True])
def test_a_job_in_hand_or_ended_is_not_told_and_one_that_waits_again_is(core, ended):
    job_id = waiting(core)
    job = core.claim(job_id, acknowledge=True)
    if ended:
        core.result(job)
    assert tell_unserved(core.runtime) == 0
    assert "unserved" not in [status for _, status in told(core, job_id)]
    if not ended:
        core.release(job)
        core.age(job_id, 59)
        assert tell_unserved(core.runtime) == 0
        core.age(job_id, 2)
        assert tell_unserved(core.runtime) == 1


def test_a_job_for_later_counts_from_then(core):
    job_id = waiting(core)
    core.sql("UPDATE remote_jobs SET available_at = now() + interval '1 h' WHERE id = :id", id=job_id)
    assert tell_unserved(core.runtime) == 0
    core.age(job_id, 3600 + 59)
    assert tell_unserved(core.runtime) == 0
    core.age(job_id, 2)
    assert tell_unserved(core.runtime) == 1


def test_it_goes_on_in_batches(core):
    for _ in range(5):
        waiting(core)
    assert tell_unserved(core.runtime, batch=2, rounds=2) == 4
    assert tell_unserved(core.runtime, batch=2) == 1


def test_a_create_of_before_keeps_its_hash():
    given = {"source_file_path": "/a", "content_type": "audio", "ingestion_task_id": "t"}
    old = fingerprint(CreateFields().load(given))
    assert old == fingerprint(CreateFields().load({**given, "unserved_after_seconds": None}))
    assert old != fingerprint(CreateFields().load({**given, "unserved_after_seconds": 60}))
    # As the version before computed it.
    assert old.hex() == "cb3c28fc116198a4e9911af434dead3ceac54b5afcc18f1cc66bc275babaf606"


@pytest.mark.slow
def test_a_worker_that_waits_on_the_running_bridge_is_seen_to_ask(bridge, client):
    refused(client.post("", client.fields("seen", unserved_after_seconds=29)), 422, "validation")
    made = ok(client.post("", client.fields("seen", unserved_after_seconds=30, available_at="2999-01-01T00:00:00Z")))
    assert ok(client.get(made["job_id"]))["unserved_after_seconds"] == 30
    seen = "SELECT * FROM queue_asks WHERE tenant = :t"

    def asks():
        client.poll("seen", wait=2)
        return bridge.sql(seen, t=client.tenant)

    [row] = wait_until(asks, "the poll to be written down")
    assert row.content_type == "seen"


def test_asks_are_forgotten_after_a_day_where_nothing_is_to_be_told(core):
    core.create("kept", unserved_after_seconds=60)
    core.result(core.claim(core.create("ended", unserved_after_seconds=60)))
    asked = [("default", "kept"), ("elsewhere", "kept"), ("default", "other"), ("default", "ended")]
    for tenant, content_type in asked:
        core.sql("INSERT INTO queue_asks VALUES (:t, :c, now() - interval '25 h')", t=tenant, c=content_type)
    core.sql("INSERT INTO queue_asks VALUES ('default', 'lately', now() - interval '23 h')")
    tell_unserved(core.runtime)
    left = {(row.tenant, row.content_type) for row in core.sql("SELECT * FROM queue_asks")}
    assert left == {("default", "kept"), ("default", "lately")}


def test_an_ask_is_written_once_in_five_seconds_and_not_for_jobs_that_have_ended(core):
    core.result(core.claim(core.create("ended", unserved_after_seconds=60)))
    waiting(core)
    queues = [Queue(core.tenant, "audio"), Queue(core.tenant, "ended")]
    for seconds, again in ((0, True), (4, False), (6, True)):
        core.sql("UPDATE queue_asks SET asked_at = asked_at - make_interval(secs => :s)", s=seconds)
        before = core.sql("SELECT asked_at FROM queue_asks")
        note_asked(core.runtime, queues)
        assert (core.sql("SELECT asked_at FROM queue_asks") != before) is again, seconds
    assert [row.content_type for row in core.sql("SELECT * FROM queue_asks")] == ["audio"]


def test_where_no_pipeline_is_told_no_outcome_is_recorded(make_runtime):
    core = Core(make_runtime(continuation_task=""))
    job_id = waiting(core)
    assert tell_unserved(core.runtime) == 0
    assert core.outcomes(job_id) == []
    assert core.row(job_id).outcome_count == 0
