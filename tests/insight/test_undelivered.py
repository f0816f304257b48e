"""Webhooks, uploads and sources where an operator looks: what needs attention, what explain says, the gauges."""

import uuid
from dataclasses import replace

import pytest

from api.http.metrics import truth
from bridge.insight import gauges
from bridge.insight.explain import explain
from bridge.insight.overview import overview
from bridge.insight.sentences import sentences
from bridge.outbox.undelivered import span
from bridge.workers.registry import WorkerRegistry
from models.outbox import FAILING_TRIES
from tests.support.calling import LOCAL, Calling
from tests.support.receiver import answer, receiver


@pytest.fixture
def core(make_runtime):
    return Calling(make_runtime(**LOCAL))


@pytest.fixture
def seen(servers):
    return WorkerRegistry(servers.redis_url, "core", "p1")


@pytest.fixture
def there():
    with receiver() as it:
        yield it


def needed(core, seen, tenant="default"):
    """Return what needs somebody, by kind."""
    return {need.kind: need for need in overview(core.runtime, seen, tenant).needs}


def said(core, seen, job_id):
    return " ".join(sentences(explain(core.runtime, seen, "default", job_id, keys=False)))


def refused_often(core, there, status):
    """Return a job whose webhook was answered this way until it counts as failing."""
    there.answers = answer(status, "out of order")
    job_id = core.ended(there.url)
    for _ in range(FAILING_TRIES):
        core.due()
        core.send()
    return job_id


def test_a_receiver_that_refuses_needs_somebody_until_it_takes_it(core, seen, there):
    job_id = core.ended(there.url)
    assert "was not tried yet." in said(core, seen, job_id)
    there.answers = answer(503)
    core.send()
    once = "was tried once and not delivered: The receiver answered 503. It is tried again at"
    assert once in said(core, seen, job_id)
    assert not needed(core, seen)
    job_id = refused_often(core, there, 503)
    need = needed(core, seen)["webhooks_failing"]
    assert need.what.startswith("2 webhooks tried often and not delivered, the oldest for ")
    assert f"127.0.0.1:{there.port} (The receiver answered 503)." in need.what
    assert need.page == "webhooks?state=failing"
    assert not needed(core, seen, "another")
    assert f"to 127.0.0.1:{there.port} was tried 5 times" in said(core, seen, job_id)
    there.answers = answer(204)
    core.due()
    core.send()
    assert not needed(core, seen)
    assert f"Its webhook was delivered to 127.0.0.1:{there.port} at " in said(core, seen, job_id)


def test_what_was_given_up_is_told_for_a_day_and_what_nobody_sends_at_once(core, seen, there):
    there.answers = answer(410)
    job_id = core.ended(there.url)
    core.send()
    assert list(needed(core, seen)) == ["webhooks_given_up"]
    assert "was given up: The receiver answered 410. It is sent only if resent." in said(core, seen, job_id)
    core.sql("UPDATE webhooks SET since = since - interval '5 days'")
    assert not needed(core, seen)
    unsent = core.ended(there.url)
    core.sql("UPDATE webhooks SET next_at = now() - interval '3 minutes' WHERE next_at IS NOT NULL")
    assert needed(core, seen)["webhooks_untried"].what.startswith("1 webhook due and not tried, the oldest for 3 min")
    assert "does a Celery worker take bridge.webhooks?" in said(core, seen, unsent)


def test_quotas_that_are_nearly_full_need_somebody(core, seen):
    key = core.asks.key_id
    core.sql("INSERT INTO upload_usage (tenant, key_id, bytes, kept) VALUES ('default', :key, 95, 7),"
             " ('default', :other, 1, 3), ('another', :other, 2, 4)",
             key=str(key), other=str(uuid.uuid4()))  # fmt: skip

    def with_limits(**changes):
        limits = core.runtime.settings.limits.model_copy(update=changes)
        core.runtime = replace(core.runtime, settings=core.runtime.settings.model_copy(update={"limits": limits}))
        return [need.what for need in overview(core.runtime, seen, "default").needs]

    assert with_limits() == []
    (of_key,) = with_limits(upload_bytes=100)
    assert of_key.startswith(f"The uploads of key pipeline ({core.prefix}) take 95% of their quota")
    (of_tenant, of_key) = with_limits(tenant_upload_bytes=100)
    assert of_tenant.startswith("The uploads of tenant default take 96% of their quota")
    told = {(one.name, *one.labels.values()): one.value
            for family in truth(gauges.read(core.runtime), core.runtime.settings.limits)
            for one in family.samples}  # fmt: skip
    assert told["bridge_upload_quota_used", "key"] == 0.95
    assert told["bridge_upload_quota_used", "tenant"] == 0.96
    assert told["bridge_upload_bytes",] == 98 + 14
    (_, of_jobs, _) = with_limits(tenant_kept_bytes=10)
    assert of_jobs.startswith("The uploads of tenant default that jobs name take 100% of their quota")


def test_a_sweep_that_only_the_store_holds_up_is_the_stores_fault(core, seen):
    core.sql("INSERT INTO sweeps (name, ran_at, seconds, changed, total) VALUES"
             " ('collect_uploads', now() - interval '1 hour', 0, 0, 0), ('expire_jobs', now(), 0, 0, 0)")  # fmt: skip
    assert list(needed(core, seen)) == ["store_refuses"]
    core.sql("UPDATE sweeps SET ran_at = now() - interval '1 hour'")
    assert list(needed(core, seen)) == ["sweeps_late"]


def test_a_source_that_settings_refuse_is_told(make_runtime, core, seen):
    there = "https://files.example.org/a.pdf"
    allowing = Calling(make_runtime(source_allow="https://files.example.org"))
    job_id = core.create()
    core.sql("UPDATE remote_jobs SET source_file_path = :url, source_size = NULL", url=there)
    assert "Its source will not be fetched: Sources at addresses are off" in said(core, seen, job_id)
    assert "source will not be fetched" not in said(allowing, seen, job_id)


def test_the_gauge_of_what_is_overdue_counts_from_the_moment_it_was_due(core, there):
    core.ended(there.url)
    core.sql("UPDATE webhooks SET next_at = now() + interval '1 hour'")
    assert overdue(core) == 0
    core.sql("UPDATE webhooks SET next_at = now() - interval '1 hour'")
    assert 3600 <= overdue(core) < 7200


def overdue(core):
    (told,) = [one.samples[0].value for one in truth(gauges.read(core.runtime), core.runtime.settings.limits)
               if one.name == "bridge_webhooks_overdue_seconds"]  # fmt: skip
    return told


def test_durations_are_told_in_a_unit_that_counts_two_or_more():
    assert [span(one) for one in (0.4, 119, 121, 7199, 7201, 172_801)] == [
        "0 s", "119 s", "2 min", "120 min", "2 h", "2 days"
    ]  # fmt: skip
