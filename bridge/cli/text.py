"""Text for a terminal: what others wrote, made harmless, and times as people write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from bridge.cli.errors import Refused

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MOST_OF_A_SMALL_UNIT = 2  # 119 min is shown as such, 120 as 2 h: never wrong by more than half


def clean(text: object) -> str:
    """Put others' text on one line, without anything that a terminal obeys: file names, messages, names of workers.

    Control characters, escape sequences' first bytes, and marks that turn the direction of writing become `�`, white
    space becomes a space.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in str(text))


def value(thing: Any) -> str:
    """Format a JSON value for a table."""
    if thing is None:
        return "–"
    return clean(thing if isinstance(thing, str) else json.dumps(thing, ensure_ascii=False))


def span(seconds: float) -> str:
    """Format a time span (seconds) in its largest fitting unit: `45 s`, `3 min`, `2 h`, `5 d`."""
    for size, unit in _UNITS:
        if seconds >= size * (_MOST_OF_A_SMALL_UNIT if size > 1 else 0):
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def age(moment: str | None, now: datetime) -> str:
    """Format how long ago a moment (ISO 8601) is."""
    return "–" if moment is None else span((now - datetime.fromisoformat(moment)).total_seconds())


def until(moment: str | None, now: datetime) -> str:
    """Format how far away a moment (ISO 8601) is; `now` if it has come."""
    if moment is None:
        return "–"
    seconds = (datetime.fromisoformat(moment) - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else "now"


def took(seconds: float | None) -> str:
    """Format how long something took (seconds); tenths while that is short."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)


def between(begin: str, end: str) -> str:
    """Format the time between two moments (ISO 8601)."""
    return took((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())


def exactly(moment: str, now: datetime) -> str:
    """Format a moment (ISO 8601), and how far away it is."""
    when = datetime.fromisoformat(moment)
    distance = f"in {span((when - now).total_seconds())}" if when > now else f"{age(moment, now)} ago"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, {distance}"


def read_moment(option: str, text: str | None) -> datetime | None:
    """Parse a moment from an option; UTC if no offset is given. Raises Refused."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{option} {text}: write 2027-01-31 or 2027-01-31T12:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
