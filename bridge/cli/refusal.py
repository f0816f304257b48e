"""What a command says, in one line, when it cannot do what it was told."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, OperationalError

_NO_TABLE, _NO_COLUMN = "42P01", "42703"


class Refused(Exception):
    """The command cannot do this; its text is one line for a person."""


def refusal_of(problem: DBAPIError) -> Refused | None:
    """PostgreSQL's refusals that a person can act on; None for any other, which is a defect and keeps its trace."""
    if getattr(problem.orig, "pgcode", None) in (_NO_TABLE, _NO_COLUMN):
        return Refused("the database's schema is missing or old: run `jobbridge db upgrade`")
    if isinstance(problem, OperationalError):
        lines = str(problem.orig).strip().splitlines()
        return Refused(f"PostgreSQL cannot be used: {lines[0] if lines else 'it gave no reason'}")
    return None
