"""Cancel or put back all jobs that match the list's filters, in bounded batches.

Each batch is one guarded UPDATE in a transaction of its own, the oldest jobs first: what is next in line to be claimed
is cancelled first, and what is put back keeps its order. Nothing is remembered between batches but the last job seen,
so that a request that broke off is simply repeated: it goes on with what still matches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Executable, Uuid, any_, bindparam, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Invalid
from bridge.jobs.cancel import CANCELLED, PUT_BACK
from bridge.jobs.listing import FILTERS, in_order, matching, worked_by
from bridge.jobs.transition import entry, follow, jobs, moving, parameters
from bridge.runtime import Runtime
from models.job import remote_jobs
from models.job_state import EDGES, ON_REQUEST, Asked, AttemptEnd, Change, JobState

BATCH = 500

# In the order of their IDs, so that two requests cannot wait for each other.
_these = (
    select(remote_jobs.c.id)
    .where(remote_jobs.c.id == any_(cast(bindparam("ids"), ARRAY(Uuid))))
    .order_by(remote_jobs.c.id)
    .with_for_update()
)
_status, _worker = cast(bindparam("status"), Text), cast(bindparam("worker_id"), Text)
# Only these filters may match differently since the jobs were looked up.
_STILL = (
    jobs.id.in_(_these.scalar_subquery()),
    or_(_status.is_(None), jobs.status == _status),
    or_(_worker.is_(None), worked_by(_worker)),
)
STATEMENTS: dict[Change, Executable] = {
    Change.CANCEL: moving(Change.CANCEL, *_STILL, values=CANCELLED, end=AttemptEnd.CANCELLED),
    Change.RESTART: moving(Change.RESTART, *_STILL, values=PUT_BACK),
}
_SEEN = (jobs.id, jobs.created_at, jobs.status)
CHANGES = {asked: change for change, asked in ON_REQUEST.items()}


class BulkChange(NamedTuple):
    """How many jobs matched and could be changed, and how many this request changed."""

    matched: int
    changed: int


def steer(
    runtime: Runtime,
    caller: Caller,
    asked: Asked,
    filters: Mapping[str, Any],
    *,
    dry_run: bool = False,
    batch: int = BATCH,
) -> BulkChange:
    """Do to all matching jobs what `cancel` or `restart` does to one; with `dry_run` only count them.

    Jobs created meanwhile are left alone. Others may change a job first: then it counts as matched, not as changed.
    Raises Invalid when no filter is given.
    """
    if all(filters.get(name) is None for name in FILTERS):
        raise Invalid({"filters": ["Name at least one; `status=pending` alone is one, and so is `created_before`."]})
    change = CHANGES[asked]
    sources = EDGES[change].sources
    states = sources if filters.get("status") is None else sources & {filters["status"]}
    if not states:
        return BulkChange(0, 0)
    where = matching(caller.tenant, filters)
    with runtime.engine.connect() as connection:
        count = select(func.count(), func.now()).where(*where, jobs.status.in_(states))
        matched, until = connection.execute(count).one()
    changed = 0
    after: tuple[Any, ...] | None = None
    while not dry_run:
        still = [*where, jobs.created_at <= until]
        first = in_order(still, filters, states, batch, columns=_SEEN, newest=False, after=after)
        with runtime.engine.begin() as connection:
            seen = list(connection.execute(first))
        if seen:
            changed += _move(runtime, caller, change, filters, seen)
            reach("bulk.between_batches")
            after = (seen[-1].created_at, seen[-1].id)
        if len(seen) < batch:
            break
    return BulkChange(matched, changed)


def _move(runtime: Runtime, caller: Caller, change: Change, filters: Mapping[str, Any], seen: list[Any]) -> int:
    params = {
        "ids": [row.id for row in seen],
        "status": filters.get("status"),
        "worker_id": filters.get("worker_id"),
        "asked_by": caller.key_id,
    }
    with runtime.engine.begin() as connection:
        moved = list(connection.execute(STATEMENTS[change], {**parameters(runtime), **params}))
    follow(runtime, sorted(moved, key=lambda row: row.id))
    if change is Change.CANCEL:
        waited = {row.id for row in seen if row.status == JobState.PENDING}
        runtime.mirror.drop([entry(row) for row in moved if row.id in waited])
    return len(moved)
