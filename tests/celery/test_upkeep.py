"""What beat runs, on the bridge as it runs."""

import runpy
import time

import pytest

from bridge import names
from bridge.cli.local.checkout import ROOT
from tests.support.client import ok
from tests.support.waiting import wait_until

RAN = "SELECT extract(epoch FROM ran_at) AS at, seconds, changed FROM sweeps WHERE name = :name"


def ran(bridge, task):
    """When a task last noted that it ran, in seconds since 1970; None if never."""
    found = bridge.sql(RAN, name=task.removeprefix("bridge."))
    return float(found[0].at) if found else None


@pytest.mark.parametrize(("aging", "period"), [("", None), ("1", 1), ("300", 30), ("86400", 60)])
def test_priorities_age_only_where_that_is_set(monkeypatch, aging, period):
    monkeypatch.setenv("BRIDGE_PRIORITY_AGING_SECONDS", aging)
    made = runpy.run_path(str(ROOT / "celeryconfig.py"))["beat_schedule"]
    scheduled = {entry["task"]: entry["schedule"] for entry in made.values()}
    assert scheduled.get(names.PROMOTE) == period


def test_no_sweep_expires_so_none_is_discarded_however_long_it_waited_or_the_clocks_differ():
    import celeryconfig

    for entry in celeryconfig.beat_schedule.values():
        assert entry["options"] == {"queue": names.SWEEPS}


@pytest.mark.slow
def test_beat_runs_each_sweep_again_and_again_and_every_run_is_noted(bridge):
    sweeps = [names.RELEASE_DUE, names.EXPIRE, names.CONTINUE, names.RECONCILE]

    def runs_after(before):
        now = {task: ran(bridge, task) or 0.0 for task in sweeps}
        return now if all(now[task] > before[task] for task in sweeps) else None

    runs = dict.fromkeys(sweeps, 0.0)
    for which in ("first", "second", "third"):
        runs = wait_until(lambda: runs_after(runs), f"the {which} run of each")  # noqa: B023


def test_purge_notes_its_runs_too(bridge):
    before = ran(bridge, names.PURGE) or 0.0
    began = time.monotonic()
    bridge.celery.send_task(names.PURGE, queue=names.QUEUE, ignore_result=True)
    wait_until(lambda: (ran(bridge, names.PURGE) or 0.0) > before, "purge to run")
    [row] = bridge.sql(RAN, name="purge_jobs")
    assert row.changed == 0
    assert 0 <= row.seconds <= time.monotonic() - began


def test_a_run_notes_how_many_jobs_it_moved(bridge, client):
    many = 300  # what other tests left to the same run is less
    ok(client.post("batch", {"jobs": [client.fields()] * many}))
    bridge.sql("UPDATE remote_jobs SET timeout_at = now() WHERE tenant = :tenant", tenant=client.tenant)
    name = names.EXPIRE.removeprefix("bridge.")
    wait_until(lambda: bridge.sql(RAN, name=name)[0].changed >= many, "the run that moved the jobs")
    assert ok(client.get("", params={"status": "pending"}))["jobs"] == []
