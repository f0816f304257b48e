"""What beat runs: the clocks, and the repair of what was missed."""

import redis
import structlog

from bridge import names
from bridge.insight import counters, durations, history
from bridge.jobs.expire import expire
from bridge.jobs.promote import promote
from bridge.jobs.purge import purge
from bridge.mirror.reconcile import reconcile
from bridge.mirror.release_due import release_due
from bridge.sweeps import swept
from bridge.workers.quarantine import watch
from tasks.app import app, runtime

log = structlog.get_logger("tasks.upkeep")


@app.task(name=names.EXPIRE)
def expire_jobs() -> None:
    """Move every job whose clock ran out."""
    with swept(runtime().engine, "expire_jobs") as run:
        run["changed"] = expire(runtime())


@app.task(name=names.RELEASE_DUE)
def release_due_jobs() -> None:
    """Mirror the jobs whose `available_at` has come."""
    with swept(runtime().engine, "release_due_jobs") as run:
        run["changed"] = release_due(runtime().engine, runtime().mirror)


@app.task(name=names.RECONCILE)
def reconcile_mirror() -> None:
    """Make the mirror agree with PostgreSQL."""
    try:
        with swept(runtime().engine, "reconcile_mirror") as run:
            repaired = reconcile(runtime().engine, runtime().mirror)
            run["changed"] = sum(repaired)
    except redis.RedisError as error:  # no run: its age tells that the mirror is not repaired
        log.warning("redis is away; the mirror is repaired later", error=type(error).__name__)
        return
    if any(repaired):
        log.info("mirror repaired", **repaired._asdict())


@app.task(name=names.PURGE)
def purge_jobs() -> None:
    """Delete what is finished, handed over and old."""
    with swept(runtime().engine, "purge_jobs") as run:
        run["changed"] = purge(runtime())


@app.task(name=names.WATCH)
def watch_workers() -> None:
    """Pause the workers that are in trouble."""
    with swept(runtime().engine, "watch_workers") as run:
        run["changed"] = watch(runtime())


@app.task(name=names.PROMOTE)
def promote_jobs() -> None:
    """Raise what has waited long in a list of a lower priority."""
    with swept(runtime().engine, "promote_jobs") as run:
        run["changed"] = promote(runtime())


@app.task(name=names.FOLD)
def fold_counts() -> None:
    """Take what has changed into the counters of jobs."""
    with swept(runtime().engine, "fold_counts") as run:
        run["changed"] = counters.fold(runtime())


@app.task(name=names.CHECK)
def check_counts() -> None:
    """Compare the counters of jobs with a full count."""
    with swept(runtime().engine, "check_counts") as run:
        run["changed"] = counters.check(runtime())


@app.task(name=names.MEDIANS)
def refresh_medians() -> None:
    """Bring the median durations up to date."""
    with swept(runtime().engine, "refresh_medians") as run:
        run["changed"] = durations.refresh(runtime())


@app.task(name=names.HISTORY)
def record_history() -> None:
    """Record what the dashboard draws."""
    with swept(runtime().engine, "record_history") as run:
        history.record(runtime())
        run["changed"] = 0  # it repairs nothing
