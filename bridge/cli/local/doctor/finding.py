"""What a check may find."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad it is."""

    WARNING = "warning"
    """The bridge works, with less than what is promised, or will not for long."""
    ERROR = "error"
    """The bridge, or a part of it, does not work, or loses what it must keep."""


class Finding(NamedTuple):
    """Something that is not as it should be."""

    check: str  # a stable word, for monitoring
    level: Level
    what: str  # one sentence
    do: str  # what to do about it, one sentence


def warning(check: str, what: str, do: str) -> Finding:
    """Make a finding despite which the bridge works."""
    return Finding(check, Level.WARNING, what, do)


def error(check: str, what: str, do: str) -> Finding:
    """Make a finding because of which a part of the bridge does not work."""
    return Finding(check, Level.ERROR, what, do)


def skewed(check: str, whose: str, ahead: float) -> list[Finding]:
    """Find a clock that is ahead of this machine's by too many seconds (`ahead`; negative: behind)."""
    if abs(ahead) <= MOST_SKEW_SECONDS:
        return []
    how = "ahead of" if ahead > 0 else "behind"
    what = f"{whose} clock is {abs(ahead):.0f} s {how} this machine's."
    return [warning(check, what, "Set the clocks of both by NTP: expiry of keys and displays depend on them.")]


MOST_SKEW_SECONDS = 5.0
