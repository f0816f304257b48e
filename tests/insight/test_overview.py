"""What the dashboard's first page is made from: queues, reasons, and what needs somebody."""

from dataclasses import replace
from uuid import UUID

import pytest

from bridge.caller import NO_KEY
from bridge.insight import gauges
from bridge.insight.overview import overview
from bridge.insight.statistics import statistics
from bridge.mirror.lists import Mirror
from bridge.workers.registry import Worker, WorkerRegistry
from bridge.workers.roster import roster_of
from bridge.workers.track_record import ends_of_workers


@pytest.fixture
def seen(core, servers):
    return WorkerRegistry(servers.redis_url, "core", "p1")


def look(core, seen):
    return overview(core.runtime, seen, core.tenant)


def kinds(found):
    return [need.kind for need in found.needs]


def test_queues_show_what_waits_and_who_asks_and_an_empty_bridge_shows_nothing(core, seen):
    empty = look(core, seen)
    assert (empty.queues, empty.needs, list(empty.reasons)) == ([], [], [])
    assert set(empty.by_state.values()) == {0}
    core.create("audio")
    core.held(content_type="video")
    seen.note(core.tenant, Worker(NO_KEY, "w9"), ["audio"])
    seen.write()
    found = look(core, seen)
    audio = next(queue for queue in found.queues if queue.content_type == "audio")
    assert (audio.pending, audio.processing, audio.workers, audio.workers_waiting) == (1, 0, 1, 1)
    assert found.by_state["processing"] == 1
    assert found.workers_waiting == 1


def test_a_queue_that_nobody_asks_for_needs_somebody_once_it_has_waited(core, seen):
    job_id = core.create("audio")
    assert kinds(look(core, seen)) == []
    core.age(job_id, 120)
    assert kinds(look(core, seen)) == ["no_worker"]
    seen.note(core.tenant, Worker(NO_KEY, "w1"), ["audio"])
    seen.write()
    assert kinds(look(core, seen)) == []


def test_late_sweeps_and_failing_outcomes_need_somebody(core, seen):
    core.sql("INSERT INTO sweeps (name, ran_at, seconds, changed, total) VALUES"
             " ('expire_jobs', now() - interval '10 minutes', 0, 0, 0),"
             " ('purge_jobs', now() - interval '10 minutes', 0, 0, 0)")  # fmt: skip
    core.result(core.held())
    core.sql("UPDATE continuations SET tries = 9, next_at = now() + interval '1 hour'")
    found = look(core, seen)
    assert kinds(found) == ["sweeps_late", "continuations_failing"]
    assert "expire_jobs" in found.needs[0].what
    assert "purge_jobs" not in found.needs[0].what  # it runs once an hour
    assert "1 outcome tried" in found.needs[1].what


def test_reasons_are_counted_within_the_tenant(core, seen):
    for _ in range(2):
        core.result(core.held(), success=False, error_message="no memory", retryable=False)
    core.result(core.held(), success=False, error_message="bad file", retryable=False)
    reasons = [(row.why, row.times) for row in look(core, seen).reasons]
    assert reasons == [("no memory", 2), ("bad file", 1)]
    assert not overview(core.runtime, seen, "another").reasons


def test_the_record_of_a_worker_counts_its_ends(core, seen):
    core.result(core.held("w1"))
    core.result(core.held("w1"), success=False, retryable=False)
    old = core.held("w1")
    core.result(old)
    core.age(old.job_id, 7200)
    for name in ("w1", "w2"):
        seen.note(core.tenant, Worker(UUID(int=1), name), ["audio"])
    seen.write()
    hands = roster_of(core.runtime, seen, core.tenant).hands
    with core.engine.connect() as connection:
        ends = ends_of_workers(connection, hands)
    one, two = ends[UUID(int=1), "w1"], ends[UUID(int=1), "w2"]
    assert (one.hour_done, one.hour_bad, one.day_done, one.day_bad) == (1, 1, 2, 1)
    assert (two.day_done, two.day_bad, two.or_more) == (0, 0, False)


def test_what_the_bridge_paused_itself_needs_somebody(core, seen):
    core.sql("INSERT INTO worker_pauses (tenant, worker_id, key_id, by, reason, drain, paused_at, until)"
             " VALUES (:t, 'w1', :key, 'bridge', 'Its last 3 claims were lost.', false, now(), now() + interval '1 h')",
             t=core.tenant, key=str(UUID(int=1)))  # fmt: skip
    (need,) = look(core, seen).needs
    assert (need.kind, need.page) == ("worker_in_trouble", "workers")
    assert "paused 1 worker whose last jobs were lost or failed at once: w1." in need.what


def test_without_redis_that_alone_is_said_of_the_queues_and_the_counts_go_on(core, away):
    runtime, registry = away
    core.age(core.create("audio"), 120)
    found = overview(runtime, registry, core.tenant)
    assert kinds(found) == ["redis_away"]
    assert [queue.pending for queue in found.queues] == [1]


def test_without_redis_statistics_and_gauges_leave_out_what_they_cannot_know(core, away):
    runtime, registry = away
    core.create("audio")
    for _ in range(2):  # the second is not asked: the breaker is open
        shown = statistics(runtime, registry, core.tenant)
        assert (shown.parked_polls, len(shown.counts)) == (None, 1)
    assert gauges.read(replace(runtime, mirror=nobody())).mirror_gap is None


def nobody():
    """Return a mirror where no Redis listens."""
    return Mirror("redis://127.0.0.1:1", "core", "p1")


@pytest.fixture
def away(core):
    return replace(core.runtime, mirror=nobody()), WorkerRegistry("redis://127.0.0.1:1", "core", "p1")
