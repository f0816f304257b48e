"""Administrators of the bridge are told which directories a source file may be in; nobody else learns its paths."""

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.admission.key_makers import administers
from bridge.caller import Caller
from bridge.errors import Invalid
from bridge.jobs.source_files import OUTSIDE
from bridge.settings import Settings


@contextmanager
def naming_roots(settings: Settings, asks: Caller) -> Iterator[None]:
    """Name the roots in a refused path's message if an admin of every tenant asks. Raises what is raised inside."""
    try:
        yield
    except Invalid as refusal:
        if "admin" not in asks.scopes or administers(asks) is not None or [OUTSIDE] not in refusal.errors.values():
            raise
        named = f"{OUTSIDE} They are: {', '.join(map(str, settings.source_roots))}."
        errors = {field: [named] if told == [OUTSIDE] else told for field, told in refusal.errors.items()}
        raise Invalid(errors, code=refusal.code) from None
