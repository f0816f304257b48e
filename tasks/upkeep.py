"""What beat runs: the clocks, and the repair of what was missed."""

import redis
import structlog

from bridge import names
from bridge.insight import counters, durations
from bridge.insight.gauges import swept
from bridge.jobs.expire import expire
from bridge.jobs.purge import purge
from bridge.mirror.reconcile import reconcile
from bridge.mirror.release_due import release_due
from bridge.workers.quarantine import watch
from tasks.app import app, runtime

log = structlog.get_logger("tasks.upkeep")


@app.task(name=names.EXPIRE)
def expire_jobs() -> None:
    """Move every job whose clock ran out."""
    with swept(runtime(), "expire_jobs") as run:
        run["changed"] = expire(runtime())


@app.task(name=names.RELEASE_DUE)
def release_due_jobs() -> None:
    """Mirror the jobs whose `available_at` has come."""
    with swept(runtime(), "release_due_jobs") as run:
        run["changed"] = release_due(runtime())


@app.task(name=names.RECONCILE)
def reconcile_mirror() -> None:
    """Make the mirror agree with PostgreSQL."""
    try:
        with swept(runtime(), "reconcile_mirror") as run:
            repaired = reconcile(runtime())
            run["changed"] = sum(repaired)
    except redis.RedisError as error:  # no run: its age tells that the mirror is not repaired
        log.warning("redis is away; the mirror is repaired later", error=type(error).__name__)
        return
    if any(repaired):
        log.info("mirror repaired", **repaired._asdict())


@app.task(name=names.PURGE)
def purge_jobs() -> None:
    """Delete what is finished, handed over and old."""
    with swept(runtime(), "purge_jobs") as run:
        run["changed"] = purge(runtime())


@app.task(name=names.WATCH)
def watch_workers() -> None:
    """Pause the workers that are in trouble."""
    with swept(runtime(), "watch_workers") as run:
        run["changed"] = watch(runtime())


@app.task(name=names.FOLD)
def fold_counts() -> None:
    """Take what has changed into the counters of jobs."""
    with swept(runtime(), "fold_counts") as run:
        run["changed"] = counters.fold(runtime())


@app.task(name=names.CHECK)
def check_counts() -> None:
    """Compare the counters of jobs with a full count."""
    with swept(runtime(), "check_counts") as run:
        run["changed"] = counters.check(runtime())


@app.task(name=names.MEDIANS)
def refresh_medians() -> None:
    """Bring the median durations up to date."""
    with swept(runtime(), "refresh_medians") as run:
        run["changed"] = durations.refresh(runtime())
