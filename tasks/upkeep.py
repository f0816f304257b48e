"""The sweeps that beat runs: the clocks, and the repair of what was missed."""

from collections.abc import Callable
from functools import cache

import structlog

from bridge import names
from bridge.blobs.collect import collect
from bridge.blobs.join import Joining
from bridge.insight import counters, durations, history
from bridge.jobs.batches import look_at_open
from bridge.jobs.expire import expire
from bridge.jobs.purge import purge
from bridge.jobs.raise_priority import raise_priorities
from bridge.jobs.unserved import tell_unserved
from bridge.mirror.reconcile import reconcile
from bridge.mirror.release_due import release_due
from bridge.runtime import Runtime
from bridge.workers.quarantine import watch
from tasks.app import app, runtime
from tasks.sweep import sweep

log = structlog.get_logger("tasks.upkeep")


def _release_due(runtime: Runtime) -> int:
    return release_due(runtime.engine, runtime.mirror)


def _reconcile(runtime: Runtime) -> int:
    repaired = reconcile(runtime.engine, runtime.mirror)
    if any(repaired):
        log.info("mirror_repaired", **repaired._asdict())
    return sum(repaired)


def _record_history(runtime: Runtime) -> int:
    history.record(runtime)
    return 0  # it repairs nothing


@cache
def _joining() -> Joining:
    return Joining(runtime())


def _join(_: Runtime) -> int:
    """Have uploads joined, without waiting for it: their thread notes what it has done."""
    _joining().wake()
    return 0


# The work of each sweep, which returns how much it changed; bridge.periodic_work says how often it runs.
SWEEPS: dict[str, Callable[[Runtime], int]] = {
    names.EXPIRE: expire,
    names.RELEASE_DUE: _release_due,
    names.RECONCILE: _reconcile,
    names.PURGE: purge,
    names.WATCH: watch,
    names.PROMOTE: raise_priorities,
    names.FOLD: counters.fold,
    names.CHECK: counters.check,
    names.MEDIANS: durations.refresh,
    names.HISTORY: _record_history,
    names.COLLECT: collect,
    names.JOIN: _join,
    names.UNSERVED: tell_unserved,
    names.BATCHES: look_at_open,
}


def _sweep(name: str, work: Callable[[Runtime], int]) -> Callable[[], None]:
    def run() -> None:
        with sweep(name) as record:
            record["changed"] = work(runtime())

    run.__name__ = name
    run.__doc__ = work.__doc__
    return run


for task, work in SWEEPS.items():
    # No events: Flower would show little but 130 runs a minute; /metrics and the dashboard show the sweeps.
    app.task(name=task, send_events=False)(_sweep(task.removeprefix("bridge."), work))
