"""Invariants of a bridge at rest: Redis agrees with PostgreSQL, the counters with the jobs, and nothing is left."""

from collections.abc import Iterator

from tests.chaos.end_state import EndState
from tests.chaos.history import History, Violation


def mirror_equal(history: History, end: EndState) -> Iterator[Violation]:
    """Check that the pending lists hold each claimable job once and nothing else; the claimed lists are empty."""
    for place in end.claimable - set(end.mirrored):
        yield Violation(f"{place} is claimable and not in the mirror")
    for place, count in end.mirrored.items():
        if place not in end.claimable:
            yield Violation(f"{place} is in the mirror and not claimable")
        elif count > 1:
            yield Violation(f"{place} is in the mirror {count} times")
    for name, length in end.claimed.items():
        if length:
            yield Violation(f"{length} IDs lie in {name}")


def counters(history: History, end: EndState) -> Iterator[Violation]:
    """Yield the counters equal a full count, and the gauges what waited at rest."""
    for place in {*end.counted, *end.kept}:
        if end.counted[place] != end.kept[place]:
            yield Violation(f"counter of {place}: {end.kept[place]} for {end.counted[place]} jobs")
    for kind in {*end.gauges, *end.resting}:
        if end.gauges[kind] != end.resting[kind]:
            yield Violation(f"gauge of {kind}: {end.gauges[kind]} for {end.resting[kind]} jobs")


def nothing_left(history: History, end: EndState) -> Iterator[Violation]:
    """Yield what a bridge at rest has none of."""
    for name, count in end.left.items():
        if count:
            yield Violation(f"{count} {name}")
