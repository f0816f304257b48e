"""Drops each clause of each guard in turn and shows that a test notices: `make guards` (about ten minutes).

A clause is a condition of a WHERE of a statement that changes a job, an outcome, an upload or a pause, or decides
whether one is made; where it stands twice in one statement both go. The tests that must notice are the deterministic
ones of the core.
Two mutants are tried at a time, each with a Redis database of its own. Exit status 1 when a clause can be dropped
without any of them failing: then it is not needed, or a test is missing.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Executable, TextClause, text

from bridge import embedded
from bridge.blobs import append_to_upload, collect, join, uploads
from bridge.insight import counters
from bridge.jobs import (
    batches,
    bulk,
    cancel,
    claim,
    complete,
    enqueue,
    expire,
    extend,
    idempotency,
    job_log,
    purge,
    raise_priority,
    release,
    result_files,
    submit_result,
    unserved,
    uploaded_sources,
)
from bridge.mirror import release_due
from bridge.outbox import outcomes, resend_sooner
from bridge.workers import pauses
from tests import conftest
from tests.support.rights import give_rights

AT_A_TIME = 2
WHOLE_BRIDGE = {"bridge", "client", "own_bridge", "start_bridge"}  # tests of these run what is no mutant

# The tests that know a module best come first; all of them follow.
NEAREST = {
    "claim": ["claims"],
    "complete": ["complete", "results"],
    "cancel": ["waits", "edges"],
    "extend": ["leases", "waits"],
    "release": ["waits", "edges", "evict", "leases"],
    "outcomes": ["outbox_core", "resend"],
    "resend_sooner": ["resend_sooner"],
    "purge": ["outbox_core", "batch"],
    "release_due": ["repair"],
    "submit_result": ["results", "waits"],
    "bulk": ["steering_core"],
    "raise_priority": ["raise_priority"],
    "expire": ["expiry_batches", "edges", "poison", "leases"],
    "counters": ["statistics"],
    "enqueue": ["submission", "batch"],
    "idempotency": ["submission", "batch"],
    "append_to_upload": ["append_to_upload"],
    "uploads": ["collect", "uploaded_sources"],
    "collect": ["collect", "ended_attempts", "uploaded_sources"],
    "join": ["join", "join_failures"],
    "uploaded_sources": ["uploaded_sources"],
    "result_files": ["artifacts"],
    "unserved": ["unserved"],
    "batches": ["batch_outcome"],
    "job_log": ["job_log", "checkpoints"],
    "pauses": ["pause", "pause_bounds", "drain"],
}
TESTS = list(dict.fromkeys(name for names in NEAREST.values() for name in names))

# Clauses that the others of their statement imply, which are there for the plan alone (tests/plans/): by the
# CHECKs of the table the indexes' predicates say what a state says (models/job.py), and what a sweep has locked as it
# is now passes the guard of the change; no job is queued before it is available, but the index of the claim is by the
# first of the two; a batch is at least as old as its jobs, which are gone only when they are old, but its index is by
# age; a claim without a claim_id equals none; a job that has ended, or whose moment has not come, is looked at for
# nothing, and what is abandoned would be abandoned again; of the uploads of an attempt a result takes those it names;
# a join says which jobs are named, and a condition on all of their IDs says it once more.
FOR_THE_PLAN = [
    (r"bridge\.jobs\.claim\.NEXT", "queued_at <= now()"),
    (r"bridge\.jobs\.claim\.NEXT", "completed_at IS NULL"),
    (r"bridge\.jobs\.claim\.(CLAIM|REPLAY)", "ack_by IS NOT NULL"),
    (r"bridge\.jobs\.claim\.CLAIM", "o.claim_id IS NOT NULL"),
    (r"bridge\.jobs\.claim\.CLAIM", "j.id = ANY(CAST(:ids AS uuid[]))"),
    (r"bridge\.jobs\.complete\.COMPLETE", "remote_jobs.id = ANY(CAST(:job_ids AS uuid[]))"),
    (r"bridge\.jobs\.(expire\.SWEEPS\[0\]|release\.TAKE_FROM_\w+)", "remote_jobs.status IN ('processing')"),
    (r"bridge\.jobs\.(expire\.SWEEPS\[0\]|release\.TAKE_FROM_\w+)", "remote_jobs.ack_by IS NOT NULL"),
    (r"bridge\.jobs\.(expire\.SWEEPS\[[0-8]\]|release\.TAKE_FROM_\w+)", "(remote_jobs.status || '') IN ('processing')"),
    (r"bridge\.jobs\.expire\.SWEEPS\[8\]", "(remote_jobs.status || '') IN ('pending')"),
    (r"bridge\.jobs\.expire\.SWEEPS\[[48]\]", "completed_at IS NULL"),
    (r"bridge\.jobs\.expire\.SWEEPS\[4\]", "ack_by IS NOT NULL"),
    (r"bridge\.jobs\.expire\.SWEEPS\[8\]", "lease_expires_at IS NULL"),
    (r"bridge\.mirror\.release_due\.DUE", "completed_at IS NULL"),
    (r"bridge\.mirror\.release_due\.DUE", "ack_by IS NULL"),
    (r"bridge\.mirror\.release_due\.DUE", "status || '' = 'pending'"),
    (r"bridge\.jobs\.raise_priority\.PROMOTE", "completed_at IS NULL"),
    (r"bridge\.jobs\.raise_priority\.PROMOTE", "status || '' = 'pending'"),
    # Of two changes of one row in one statement one happens, and PostgreSQL does not promise which.
    (r"bridge\.workers\.pauses\.RESUME", "its.by = 'operator'"),
    (r"bridge\.jobs\.job_log\.NAME", "n.upload_id <> kept.id"),  # the row is made again, where that comes last
    (r"bridge\.jobs\.unserved\.TELL", "j.unserved_at IS NOT NULL"),
    (r"bridge\.jobs\.unserved\.TELL", "j.completed_at IS NULL"),
    (r"bridge\.jobs\.unserved\.TELL", "j.unserved_at <= now()"),
    (r"bridge\.blobs\.collect\.ABANDON", "upload_id IS NOT NULL"),
    (r"bridge\.blobs\.collect\.LET_GO", "job_id IS NOT NULL"),
    (r"bridge\.jobs\.purge\.FORGET_BATCHES", "created_at < now() - make_interval(secs => :seconds)"),
    (r"bridge\.jobs\.result_files\.FIND", "id = ANY (CAST(:uploads AS uuid[]))"),
]

Put = Callable[[Any], None]


def statements() -> Iterator[tuple[str, Executable, Put]]:
    """Every statement with a guard: its name, itself, and how another takes its place."""
    for module, names in {
        claim: ["CLAIM", "NEXT", "REPLAY"],
        enqueue: ["INSERT"],
        idempotency: ["EARLIER", "KEEP_BATCH"],
        counters: ["FOLD", "CHECK", "FORGET"],
        cancel: ["CANCEL", "RESTART"],
        complete: ["COMPLETE"],
        extend: ["EXTEND"],
        release: ["RETURN", "RETRY", "FAIL", "TAKE_FROM_KEY", "TAKE_FROM_WORKERS"],
        outcomes: ["TAKE_OF_JOBS", "TAKE_FIRST", "TAKE_AGAIN", "SENT", "NOT_SENT", "CONFIRM", "RESEND_ONE",
                   "RESEND_FAILING"],
        resend_sooner: ["SOONER"],
        purge: ["PURGE", "FORGET_BATCHES"],
        raise_priority: ["PROMOTE"],
        release_due: ["DUE"],
        append_to_upload: ["BEGIN", "COUNT", "DROP"],
        uploads: ["FORGET_ONE", "FORGET_EXPIRED"],
        collect: ["LET_GO", "ABANDON", "FIND", "REMOVE"],
        join: ["TAKE", "HOLD", "JOIN", "LEAVE"],
        uploaded_sources: ["FIND", "NAME"],
        result_files: ["FIND", "NAME"],
        unserved: ["ASKED", "TELL", "FORGET"],
        batches: ["OPEN", "END"],
        job_log: ["APPEND", "TRIM", "SAVE", "NAME"],
        pauses: ["NOW_PAUSED", "RESUME", "OTHERS"],
    }.items():  # fmt: skip
        for name in names:
            yield f"{module.__name__}.{name}", getattr(module, name), partial(setattr, module, name)
    of_changes: dict[str, dict[Any, Executable]] = {"submit_result": submit_result.STATEMENTS, "bulk": bulk.STATEMENTS}
    for name, changes in of_changes.items():
        for change, statement in list(changes.items()):
            yield f"bridge.jobs.{name}.{change}", statement, partial(changes.__setitem__, change)
    for index, sweep in enumerate(list(expire.SWEEPS)):
        yield f"bridge.jobs.expire.SWEEPS[{index}]", sweep.statement, _sweeper(index, sweep)


def for_the_plan_only(name: str, clause: str) -> bool:
    """Whether this clause is implied by the others of its statement, and only lets the planner use an index."""
    return any(re.fullmatch(names, name) and clause == only for names, only in FOR_THE_PLAN)


def _sweeper(index: int, sweep: expire.Sweep) -> Put:
    return lambda mutant: expire.SWEEPS.__setitem__(index, sweep._replace(statement=mutant))


def clauses(sql: str) -> list[str]:
    """Return the conditions of every WHERE, each once."""
    found: dict[str, None] = {}
    for match in re.finditer(r"\bWHERE\b", sql):
        start = depth = 0
        position = start = match.end()
        while position <= len(sql):
            rest = sql[position:]
            character = rest[:1]
            ended = depth == 0 and (
                character in ("", ")") or re.match(r"\s(ORDER BY|LIMIT|OFFSET|FOR UPDATE|RETURNING|UNION ALL)\b", rest)
            )
            if ended or (depth == 0 and re.match(r"\sAND\b", rest)):
                found.setdefault(sql[start:position].strip())
                if ended:
                    break
                position = start = position + 4
                continue
            depth += (character == "(") - (character == ")")
            position += 1
    return [clause for clause in found if clause]


def without(statement: Executable, clause: str) -> TextClause:
    """Return the statement with this condition always true."""
    assert isinstance(statement, TextClause)
    mutant = text(str(statement).replace(clause, "TRUE"))
    binds = statement._bindparams
    return mutant.bindparams(*(binds[name] for name in mutant._bindparams if name in binds))


class Try(NamedTuple):
    """A mutant that a child process runs the tests with."""

    name: str
    clause: str
    mutate: Callable[[], None]


class OfTheCore:
    """Leaves out the tests that run a whole bridge."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not WHOLE_BRIDGE & set(getattr(item, "fixturenames", ()))]


def child(attempt: Try, slot: int, log: Path) -> int:
    """Run the tests with this mutant; return 0 if it survives."""
    pid = os.fork()
    if pid:
        return pid
    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    shared = conftest.SHARED[0]
    conftest.SHARED[0] = SimpleNamespace(  # type: ignore[call-overload]
        database_url=shared.database_url, redis_url=f"{shared.redis_url.rpartition('/')[0]}/{slot}"
    )
    attempt.mutate()
    nearest = NEAREST.get(attempt.name.split(".")[2], [])
    names = dict.fromkeys([*nearest, *TESTS])
    tests = [str(path) for name in names for path in Path("tests").rglob(f"test_{name}.py")]
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--no-header", "--timeout", "60"]
    options += ["-o", "timeout_method=signal"]  # so that the test that hangs is named
    code = pytest.main([*options, *tests], plugins=[OfTheCore()])
    sys.stdout.flush()
    os._exit(int(code))


def verdicts(tries: Iterator[Try], place: Path) -> Iterator[tuple[Try, bool, str]]:
    """Each try, whether it survived, and what its tests said; some at a time."""
    running: dict[int, tuple[Try, int]] = {}
    free = list(range(1, AT_A_TIME + 1))
    while True:
        while free and (attempt := next(tries, None)):
            slot = free.pop()
            running[child(attempt, slot, place / f"log{slot}")] = attempt, slot
        if not running:
            return
        pid, status = os.waitpid(-1, 0)
        if pid in running:
            attempt, slot = running.pop(pid)
            free.append(slot)
            said = (place / f"log{slot}").read_text()
            yield attempt, os.waitstatus_to_exitcode(status) == 0, said


def mutants(only: str) -> Iterator[Try]:
    """Every statement without one of its clauses."""
    for name, statement, put in list(statements()):
        for clause in clauses(str(statement)) if only in name else []:
            if not for_the_plan_only(name, " ".join(clause.split())):
                yield Try(name, " ".join(clause.split()), partial(put, without(statement, clause)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="statements whose name contains this")
    only = parser.parse_args().only
    survivors = []
    with tempfile.TemporaryDirectory() as place, embedded.start(Path(place), durable=False) as servers:
        give_rights(servers)
        conftest.SHARED.append(servers)
        whole = iter([] if only else [Try("the tests.themselves", "", lambda: None)])
        for _, passed, said in verdicts(whole, Path(place)):
            if not passed:
                print(said[-3000:], "\nThe tests fail without any mutant.")
                return 1
        for attempt, survived, said in verdicts(mutants(only), Path(place)):
            first = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
            verdict = "SURVIVES" if survived else f"noticed by {first[1] if first else '?'}"
            print(f"{attempt.name}: {attempt.clause}\n    {verdict}", flush=True)
            if survived:
                survivors.append(f"{attempt.name}: {attempt.clause}")
    print(f"\n{len(survivors)} clauses can be dropped without a test noticing", *survivors, sep="\n  ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
