"""The history checker: each invariant a pure function of what clients saw and what is there at the end."""

from collections.abc import Callable, Iterator

from tests.chaos import answers, creation, leases, leftovers, recovery, results
from tests.chaos.end_state import EndState
from tests.chaos.history import History, Violation

Invariant = Callable[[History, EndState], Iterator[Violation]]

INVARIANTS: dict[str, Invariant] = {
    "conservation": creation.conservation,
    "no invention": creation.no_invention,
    "isolation": creation.isolation,
    "disjoint leases": leases.disjoint_leases,
    "fencing": leases.fencing,
    "leases kept": leases.leases_kept,
    "one result": results.one_result,
    "legal paths": results.legal_paths,
    "exactly-once effect": results.exactly_once_effect,
    "same text": results.same_text,
    "bounds": recovery.bounds,
    "liveness": recovery.liveness,
    "mirror equality": leftovers.mirror_equal,
    "counters": leftovers.counters,
    "only declared answers": answers.only_declared,
    "nothing left behind": leftovers.nothing_left,
}


def check(history: History, end: EndState) -> list[Violation]:
    """Every violation; its text begins with the invariant's name."""
    return [
        violation._replace(what=f"{name}: {violation.what}")
        for name, invariant in INVARIANTS.items()
        for violation in invariant(history, end)
    ]
