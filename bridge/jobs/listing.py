"""Lists in pages: the filters, the order, and the cursor that opens the next page.

Every filter has an index that gives the jobs in the order of the list, so that a page reads about as many rows as it
shows: none, `status`, `content_type`, both of them, `ingestion_task_id` and `worker_id`, each also with a range of
`created_at`. Other combinations use one of these indexes and pass over what the other filters leave out.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
    union_all,
)

from bridge.cursor import decode_cursor, page_and_cursor
from bridge.jobs.documents import AT_ONCE, Document, processing_time, shown, size_of, text_of
from bridge.jobs.read import LONGEST_MESSAGE
from bridge.runtime import Runtime
from models.job import remote_jobs
from models.job_state import JobState

FILTERS = ("status", "content_type", "ingestion_task_id", "worker_id", "created_after", "created_before")

# The documents of a page, as they are sent: a page ends with the job that exceeds it.
MOST_BYTES = 2**20
_TEXTS = ("message", "source_file_path", "ingestion_task_id", "worker_id")  # short, and any number of them
_STORED = ("task_options", "result_data", "error_message")
_DOCUMENTS = (Document.TASK_OPTIONS, Document.METADATA)

_c = remote_jobs.c


def worked_by(worker_id: Any) -> ColumnElement[bool]:
    """Build the condition that a job is, or was last, held by this worker; a pending job is held by nobody."""
    return and_(_c.worker_id == worker_id, _c.status != JobState.PENDING)


def matching(tenant: str, filters: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return the conditions of the list's filters except `status`, which `in_order` handles."""
    exact = ("content_type", "ingestion_task_id")
    where: list[ColumnElement[bool]] = [_c.tenant == tenant]
    where += [_c[name] == filters[name] for name in exact if filters.get(name) is not None]
    if filters.get("worker_id") is not None:
        where.append(worked_by(filters["worker_id"]))
    if filters.get("created_after") is not None:
        where.append(_c.created_at > filters["created_after"])
    if filters.get("created_before") is not None:
        where.append(_c.created_at < filters["created_before"])
    return where


def in_order(
    where: Iterable[ColumnElement[bool]],
    filters: Mapping[str, Any],
    states: Collection[str],
    limit: int,
    *,
    columns: Collection[ColumnElement[Any]] = tuple(_c),
    newest: bool = True,
    after: tuple[Any, ...] | None = None,
) -> Any:
    """Build the query for the first `limit` matching jobs in these states, by creation, after the place `after`.

    `columns`: what to select of each job, including `created_at` and `id`.
    """
    place = tuple_(_c.created_at, _c.id)
    if after is not None:
        where = [*where, place < tuple_(*after) if newest else place > tuple_(*after)]

    def arm(*more: ColumnElement[bool]) -> Select[Any]:
        order = (_c.created_at.desc(), _c.id.desc()) if newest else (_c.created_at, _c.id)
        return select(*columns).where(*where, *more).order_by(*order).limit(limit)

    few = filters.get("ingestion_task_id") is not None or filters.get("worker_id") is not None
    every = len(states) == len(JobState)
    if few or (every and filters.get("content_type") is None):
        return arm() if every else arm(_c.status.in_(states))
    # One scan a state, each in the order of its index and ended by the limit, instead of one over all of them.
    arms = union_all(*(arm(_c.status == state) for state in sorted(states))).subquery()
    created_at, job_id = arms.c.created_at, arms.c.id
    order = (created_at.desc(), job_id.desc()) if newest else (created_at, job_id)
    return select(arms).order_by(*order).limit(limit)


def page(
    runtime: Runtime, tenant: str, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Return the matching jobs, newest first, and the cursor of the next page. Raises Invalid for a foreign cursor.

    A page has fewer jobs than `limit` where their documents are large.
    """
    with runtime.single.connect() as connection:
        rows = list(connection.execute(_weighed(_newest(tenant, filters, limit, cursor, tuple(_c)))))
    return page_and_cursor(rows, min(limit, sum(row.fits for row in rows)), "created_at", "id")


# What people choose a job by in a list; none of its documents.
_SHORT = ("id", "status", "content_type", "ingestion_task_id", "priority", "created_at", "started_at", "completed_at")
SHORT = (
    *(_c[name] for name in (*_SHORT, "attempt", "retry_count", "max_retries", "worker_id", "progress")),
    func.left(_c.error_message, 200).label("error_message"),
)


def short_page(
    runtime: Runtime, tenant: str, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Return a page as `page` does, without documents. Raises Invalid for a foreign cursor."""
    with runtime.single.connect() as connection:
        rows = list(connection.execute(_newest(tenant, filters, limit, cursor, SHORT)))
    return page_and_cursor(rows, limit, "created_at", "id")


def _newest(tenant: str, filters: Mapping[str, Any], limit: int, cursor: str | None, columns: Any) -> Any:
    states = list(JobState) if filters.get("status") is None else [filters["status"]]
    after = None if cursor is None else decode_cursor(cursor, datetime, UUID)
    return in_order(matching(tenant, filters), filters, states, limit + 1, columns=columns, after=after)


def _weighed(query: Any) -> Select[Any]:
    """Add to the jobs of a list (with the columns read.WHOLE) whether each still fits into the page; those that do not
    come without their documents."""
    found = query.subquery("found")
    stored = (func.coalesce(func.pg_column_size(found.c[name]), 0) for name in _STORED)
    rough = _before(sum(stored, start=literal(0)), found).label("rough")
    found = select(found, rough).subquery("roughly")
    # Compressed documents must be read to know their size: so only as many bytes as a page may have uncompressed.
    near = found.c.rough < MOST_BYTES
    sizes = {size_of(name): case((near, shown(name, found.c)[1])) for name in _DOCUMENTS}
    texts = (func.left(found.c.error_message, LONGEST_MESSAGE), *(found.c[name] for name in _TEXTS))
    escaped = (func.octet_length(cast(func.to_json(one), Text)) for one in texts)
    real = sum((func.coalesce(size, 0) for size in (*sizes.values(), *escaped)), start=literal(0))
    before = _before(case((near, real), else_=MOST_BYTES), found).label("before")
    sized = [size.label(name) for name, size in sizes.items()]
    weighed = select(found, *sized, before).subquery("weighed")
    fits = and_(weighed.c.rough < MOST_BYTES, weighed.c.before < MOST_BYTES)
    columns = [column for column in weighed.c if column.name not in {*_STORED, "rough", "before"}]
    small = [case((and_(fits, weighed.c[size_of(name)] <= AT_ONCE), text_of(name, weighed.c))) for name in _DOCUMENTS]
    shown_message = case((fits, func.left(weighed.c.error_message, LONGEST_MESSAGE)))
    took = case((fits, processing_time(weighed.c)))
    return select(
        *columns,
        *(text.label(name) for text, name in zip(small, _DOCUMENTS, strict=True)),
        shown_message.label("error_message"),
        took.label("processing_time"),
        fits.label("fits"),
    ).order_by(weighed.c.created_at.desc(), weighed.c.id.desc())


def _before(weight: ColumnElement[Any], jobs: Subquery) -> ColumnElement[Any]:
    """Sum the weights of the jobs before each one in the list."""
    newest = (jobs.c.created_at.desc(), jobs.c.id.desc())
    return func.coalesce(func.sum(weight).over(order_by=newest, rows=(None, -1)), 0)
