"""What a command says, in one line, if it cannot do what it was told; and the exit status that goes with it."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.cli.local.checkout import CheckoutError
from bridge.private_files import NotOurs
from bridge.settings import SettingsError

_NO_TABLE, _NO_COLUMN = "42P01", "42703"


class Refused(Exception):
    """The command cannot do this; its text is one line for a person. `status` is the exit status."""

    status = 2  # wrong usage, or settings


class RefusedByBridge(Refused):
    """The bridge answered and said no; a line for its detail, and one for each field it names.

    `passing`: it may say yes to the same a little later.
    """

    status = 1

    def __init__(self, lines: Iterable[str], *, passing: bool = False) -> None:
        super().__init__("\n".join(lines))
        self.passing = passing


class Unreachable(Refused):
    """The bridge gave no answer of its own: nobody listens, nobody in time, or somebody else."""

    status = 3


def refusal_of(problem: Exception) -> Refused | None:
    """Return a refusal that a person can act on, PostgreSQL's included; None for a defect, which keeps its trace."""
    if isinstance(problem, Refused):
        return problem
    if isinstance(problem, CheckoutError | NotOurs | SettingsError):
        return Refused(str(problem))
    from sqlalchemy.exc import DBAPIError, OperationalError  # a quarter of a second that others need not wait for

    from bridge.embedded import EmbeddedError

    if isinstance(problem, EmbeddedError):
        return Refused(str(problem))
    if not isinstance(problem, DBAPIError):
        return None
    if getattr(problem.orig, "pgcode", None) in (_NO_TABLE, _NO_COLUMN):
        return Refused("the database's schema is missing or old: run `jobbridge db upgrade`")
    if isinstance(problem, OperationalError):
        lines = str(problem.orig).strip().splitlines()
        return Refused(f"PostgreSQL cannot be used: {lines[0] if lines else 'it gave no reason'}")
    return None
