"""Each change of a job's state is one line of the log, told from one place, whoever asked for it."""

import re

import pytest
from structlog.testing import capture_logs

from bridge.cli.local.checkout import ROOT
from bridge.job_events import CREATED, EVENTS, REQUEST_ID
from bridge.jobs.bulk import steer
from bridge.jobs.release import MOST_RETURNS, evict
from models.job_state import EDGES, LATE_CHANGES, Asked, Change, JobState
from tests.support.core import KEY, Core

SAID = "the private words of a document"


def overdue(core: Core, job_id, seconds: float = 61):
    core.age(job_id, seconds)
    return job_id, core.expire


def queued_out(core: Core):
    return overdue(core, core.create(queue_timeout_seconds=100), 101)


def silent(core: Core, **fields):
    return overdue(core, core.held(**fields).job_id)


def unseen(core: Core, returns: int, **fields):
    return silent(core, acknowledge=False, returns=returns, **fields)


def given_back(core: Core, returns: int, **fields):
    job = core.held(returns=returns, **fields)
    return job.job_id, lambda: core.release(job)


def result(core: Core, job, **said):
    return job.job_id, lambda: core.result(job, **said)


def cancelled(core: Core, job_id):
    return job_id, lambda: core.cancel(job_id)


def restarted(core: Core, end):
    job_id, work = end(core)
    work()
    return job_id, lambda: core.restart(job_id)


def many(core: Core, asked: Asked):
    job_id = core.create()
    if asked is Asked.RETRY:
        core.cancel(job_id)
    return job_id, lambda: steer(core.runtime, core.of(KEY), asked, {"content_type": "audio"})


def evicted(core: Core):
    job = core.held("gone")
    return job.job_id, lambda: evict(core.runtime, core.tenant, ["gone"], [KEY.key_id])


FAILED = {"success": False, "error_message": SAID}
LAST = MOST_RETURNS - 1
P, R = JobState.PENDING, JobState.PROCESSING
# A way along each edge from each of its states: the change, the state before it, and what does it.
WAYS = [
    (Change.CLAIM, P, lambda core: ((job_id := core.create()), lambda: core.claim(job_id))),
    (Change.COMPLETE, R, lambda core: result(core, core.held(), content=SAID)),
    (Change.RETRY, R, lambda core: result(core, core.held(), **FAILED)),
    (Change.RETRY, R, silent),
    (Change.RETRY, R, lambda core: unseen(core, LAST)),
    (Change.RETRY, R, lambda core: given_back(core, LAST)),
    (Change.RETURN, R, lambda core: unseen(core, 0)),
    (Change.RETURN, R, lambda core: given_back(core, 0)),
    (Change.RETURN, R, evicted),
    (Change.FAIL, R, lambda core: result(core, core.held(), **FAILED, retryable=False)),
    (Change.FAIL, R, lambda core: silent(core, max_retries=0)),
    (Change.FAIL, R, lambda core: unseen(core, LAST, max_retries=0)),
    (Change.FAIL, R, lambda core: given_back(core, LAST, max_retries=0)),
    (Change.LATE_COMPLETE, P, lambda core: result(core, core.lost(acknowledge=False), content=SAID)),
    (Change.LATE_RETRY, P, lambda core: result(core, core.lost(acknowledge=False), **FAILED)),
    (Change.LATE_FAIL, P, lambda core: result(core, core.lost(acknowledge=False), **FAILED, retryable=False)),
    (Change.EXPIRE_QUEUE, P, queued_out),
    (Change.EXPIRE_DEADLINE, R, lambda core: overdue(core, core.held().job_id, 3601)),
    (Change.CANCEL, P, lambda core: cancelled(core, core.create())),
    (Change.CANCEL, P, lambda core: cancelled(core, core.lost(acknowledge=False).job_id)),
    (Change.CANCEL, R, lambda core: cancelled(core, core.held().job_id)),
    (Change.CANCEL, P, lambda core: many(core, Asked.CANCEL)),
    (Change.RESTART, JobState.FAILED, lambda core: restarted(core, lambda core: silent(core, max_retries=0))),
    (Change.RESTART, JobState.TIMEOUT, lambda core: restarted(core, queued_out)),
    (Change.RESTART, JobState.CANCELLED, lambda core: restarted(core, lambda core: cancelled(core, core.create()))),
    (Change.RESTART, JobState.CANCELLED, lambda core: many(core, Asked.RETRY)),
]


def test_there_is_a_way_along_each_edge_from_each_of_its_states():
    edges = {(change, source) for change, edge in EDGES.items() for source in edge.sources}
    assert {(change, source) for change, source, _ in WAYS} == edges
    assert EVENTS.keys() == EDGES.keys()
    assert len({CREATED, *EVENTS.values()}) == len(EDGES) + 1


@pytest.mark.parametrize(("change", "source", "way"), WAYS, ids=lambda value: str(value) if value in EVENTS else "")
def test_a_change_is_exactly_one_line(core, change, source, way):
    REQUEST_ID.set("asked-in-this-request")
    job_id, work = way(core)
    with capture_logs() as lines:
        work()
    (line,) = (line for line in lines if line.get("job_id") == str(job_id))
    row = core.row(job_id)
    ended = source == JobState.PROCESSING or change in LATE_CHANGES
    assert line == {
        "event": EVENTS[change],
        "log_level": "info",
        "job_id": str(job_id),
        "attempt": row.attempt,
        "from": source,
        "to": EDGES[change].target,
        "end": core.hows(job_id)[-1] if ended else None,
        "why": line["why"],
        "worker_id": row.worker_id,
        "content_type": "audio",
        "tenant": core.tenant,
        "seconds": line["seconds"],
        "request_id": "asked-in-this-request",
    }
    assert SAID not in str(line)
    if change is Change.RESTART:
        assert line["seconds"] is None
    else:
        assert 0 <= line["seconds"] < 4000
    if line["end"] not in (None, "completed", "failed") or change in (Change.EXPIRE_QUEUE, Change.CANCEL):
        assert line["why"].endswith(".")


def test_each_create_is_a_line_and_what_changes_nothing_is_none(core):
    with capture_logs() as lines:
        job_id = core.create(idempotency_key="once", ingestion_task_id="one")
        others = [core.create(), *core.create_batch([core.fields(), core.fields()])]
    assert [(line["event"], line["job_id"]) for line in lines] == [(CREATED, one) for one in (job_id, *others)]
    job = core.held()
    core.result(job)
    with capture_logs() as lines:
        assert core.create(idempotency_key="once", ingestion_task_id="one") == job_id
        core.result(job)
        core.restart(job_id)
        core.expire()
        steer(core.runtime, core.of(KEY), Asked.CANCEL, {"content_type": "audio"}, dry_run=True)
    assert lines == []


def test_the_operators_page_tells_of_each_event():
    page = (ROOT / "docs" / "operations.md").read_text()
    logs = page[page.index("## Logs") :]
    named = set(re.findall(r"^\| `(job_\w+)` \|", logs, re.M)) - {"job_counter_corrected"}  # no job's change of state
    assert named == {CREATED, *EVENTS.values()}
