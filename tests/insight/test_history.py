"""The history that the dashboard draws: steps, their joining, and their bound."""

import pytest
from sqlalchemy import text

from bridge.insight import counters, history
from bridge.insight.history import SPANS

SHIFT = "UPDATE history SET at = at - make_interval(secs => :seconds)"


def lines(core, step, content_type="audio"):
    return core.sql(
        "SELECT * FROM history WHERE step = :step AND content_type = :kind ORDER BY at", step=step, kind=content_type
    )


def finished(core, kind="audio", seconds_ago=20.0, took=4.0, **said):
    job = core.held(content_type=kind)
    core.result(job, **said)
    core.sql(
        "UPDATE remote_jobs SET completed_at = now() - make_interval(secs => :ago),"
        " started_at = now() - make_interval(secs => :ago + :took) WHERE id = :id",
        id=str(job.job_id), ago=seconds_ago, took=took,
    )  # fmt: skip


def test_a_step_has_what_ended_in_it_and_what_waits_at_its_end(core):
    core.sql("INSERT INTO history (step, at, tenant, content_type) VALUES (15, date_bin('15 s', now(),"
             " timestamptz '2000-01-01 00:00+00') - interval '60 s', '', '')")  # fmt: skip
    for took in (1, 2, 9):
        finished(core, took=took)
    finished(core, success=False, retryable=False)
    core.create("audio")
    core.create("video")
    assert history.record(core.runtime) >= 3
    assert history.record(core.runtime) == 0  # each step once
    audio = lines(core, 15)
    assert [sum(row.completed for row in audio), sum(row.failed for row in audio)] == [3, 1]
    assert {row.median_seconds for row in audio if row.completed == 3} == {2}
    assert (audio[-1].pending, audio[-1].processing) == (1, 0)
    assert audio[-1].oldest_seconds >= 0
    assert lines(core, 15, "video")[-1].pending == 1
    with core.engine.connect() as connection:
        seen = history.series(connection, core.tenant, SPANS["1h"])
        assert seen[-1].pending == 2
        assert history.series(connection, "another", SPANS["1h"])[-1].pending == 0
        hour = history.last_hour(connection, core.tenant)
    assert (hour["audio"].completed, hour["audio"].failed) == (3, 1)


def test_short_steps_are_joined_into_long_ones_and_forgotten(core):
    core.sql(
        "INSERT INTO history (step, at, tenant, content_type, completed, median_seconds, p95_seconds, pending)"
        " SELECT 15, date_bin('300 s', now() - interval '2 s', timestamptz '2000-01-01 00:00+00')"
        " - make_interval(secs => ago), 'default', 'audio', done, median, p95, waits"
        " FROM (VALUES (300, 2, 3, 8, 7), (285, 6, 7, 5, 1)) AS v(ago, done, median, p95, waits)"
    )
    for _ in range(2):
        history.record(core.runtime)
    (joined,) = lines(core, 300)
    assert (joined.completed, joined.median_seconds, joined.p95_seconds, joined.pending) == (8, 6, 8, 7)
    core.sql(SHIFT, seconds=8 * 86400)
    history.record(core.runtime)
    assert not core.sql("SELECT FROM history WHERE at < now() - interval '7 days 1 hour'")


def test_nothing_but_a_mark_is_kept_of_idle_steps_and_no_more_lines_than_the_bound(core, monkeypatch):
    history.record(core.runtime)
    assert {(row.tenant, row.content_type) for row in core.sql("SELECT * FROM history")} == {("", "")}
    core.sql("TRUNCATE history")
    for kind, count in (("many", 3), ("few", 1), ("some", 2)):
        for _ in range(count):
            core.create(kind)
    monkeypatch.setattr(history, "MOST_LINES", 2)
    history.record(core.runtime)
    assert {row.content_type for row in core.sql("SELECT * FROM history WHERE tenant <> ''")} == {"many", "some"}


@pytest.mark.parametrize(("lock", "job"), [(history.LOCK, history.record), (counters.LOCK, counters.check)])
def test_what_another_process_is_doing_is_left_to_it(core, lock, job):
    with core.engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
        assert job(core.runtime) == 0
    assert not core.sql("SELECT FROM history")
