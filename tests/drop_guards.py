"""Drops each clause of each guard in turn and shows that a test notices: `make guards` (about ten minutes).

A clause is a condition of a WHERE of a statement that changes a job or an outcome; where it stands twice in one
statement both go. The tests that must notice are the deterministic ones of the core. Exit status 1 when a clause
can be dropped without any of them failing: then it is not needed, or a test is missing.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import TextClause, text

from bridge import cancel, claim, embedded, expire, extend, finish, give_back, outbox, purge, release_due, steer
from tests import conftest

TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "edges",
        "leases",
        "results",
        "claims",
        "waits",
        "outbox_core",
        "repair",
        "expiry_batches",
        "poison",
        "steering_core",
        "resend",
    )
]

Put = Callable[[TextClause], None]


def statements() -> Iterator[tuple[str, TextClause, Put]]:
    """Every statement that changes a job or an outcome: its name, itself, and how another takes its place."""
    for module, names in {
        claim: ["CLAIM", "NEXT", "REPLAY"],
        cancel: ["CANCEL", "RESTART"],
        extend: ["EXTEND"],
        give_back: ["RETURN", "RETRY", "FAIL"],
        outbox: ["TAKE", "SENT", "NOT_SENT", "CONFIRM", "RESEND_ONE", "RESEND_FAILING"],
        purge: ["PURGE"],
        release_due: ["DUE"],
    }.items():
        for name in names:
            yield f"{module.__name__}.{name}", getattr(module, name), _setter(module, name)
    for change, statement in list(finish.STATEMENTS.items()):
        yield f"bridge.finish.{change}", statement, _putter(finish.STATEMENTS, change)
    for change, statement in list(steer.STATEMENTS.items()):
        yield f"bridge.steer.{change}", statement, _putter(steer.STATEMENTS, change)
    for index, (statement, head) in enumerate(list(expire.SWEEPS)):
        yield f"bridge.expire.SWEEPS[{index}]", statement, _sweeper(index, head)


def _setter(module: object, name: str) -> Put:
    return lambda mutant: setattr(module, name, mutant)


def _putter(mapping: dict[object, TextClause], key: object) -> Put:
    return lambda mutant: mapping.__setitem__(key, mutant)


def _sweeper(index: int, head: bool) -> Put:
    return lambda mutant: expire.SWEEPS.__setitem__(index, (mutant, head))


def clauses(sql: str) -> list[str]:
    """The conditions of every WHERE, each once."""
    found: dict[str, None] = {}
    for match in re.finditer(r"\bWHERE\b", sql):
        start = depth = 0
        position = start = match.end()
        while position <= len(sql):
            rest = sql[position:]
            character = rest[:1]
            ended = depth == 0 and (
                character in ("", ")") or re.match(r"\s(ORDER BY|LIMIT|FOR UPDATE|RETURNING|UNION ALL)\b", rest)
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


def without(statement: TextClause, clause: str) -> TextClause:
    """The statement with this condition always true."""
    mutant = text(str(statement).replace(clause, "TRUE"))
    binds = statement._bindparams
    return mutant.bindparams(*(binds[name] for name in mutant._bindparams if name in binds))


def survives(mutate: Callable[[], None], log: Path) -> bool:
    """Whether the tests pass in a child process whose statement is the mutant."""
    child = os.fork()
    if child == 0:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        mutate()
        tests = [test for test in TESTS if Path(test).exists()]
        code = pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--no-header", *tests])
        sys.stdout.flush()
        os._exit(int(code))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="statements whose name contains this")
    only = parser.parse_args().only
    survivors = []
    with tempfile.TemporaryDirectory() as place, embedded.start(Path(place), durable=False) as servers:
        conftest.SHARED.append(servers)
        log = Path(place) / "log"
        if not only and not survives(lambda: None, log):
            print(log.read_text()[-3000:], "\nThe tests fail without any mutant.")
            return 1
        for name, statement, put in statements():
            if only not in name:
                continue
            for clause in clauses(str(statement)):
                alive = survives(lambda: put(without(statement, clause)), log)  # noqa: B023
                first = re.search(r"^FAILED (\S+)|^ERROR (\S+)", log.read_text(), re.MULTILINE)
                verdict = "SURVIVES" if alive else f"noticed by {(first[1] or first[2]) if first else '?'}"
                print(f"{name}: {' '.join(clause.split())}\n    {verdict}", flush=True)
                if alive:
                    survivors.append(f"{name}: {' '.join(clause.split())}")
    print(f"\n{len(survivors)} clauses can be dropped without a test noticing", *survivors, sep="\n  ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
