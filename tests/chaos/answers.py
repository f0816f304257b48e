"""The invariant of the surface: only answers that the OpenAPI document declares, and none that nobody deserved."""

from collections.abc import Iterator

from tests.chaos.end_state import EndState
from tests.chaos.history import ROUTES, History, Outcome, Violation

#: What a client that keeps to the protocol gets only where it asked for it (`Call.expects`).
UNDESERVED = frozenset({400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 416, 417, 422, 431})
LATER = frozenset({429, 503})


def only_declared(history: History, end: EndState) -> Iterator[Violation]:
    """Each status is declared for its route; no 5xx but 503; 429 and 503 say when to come again."""
    for call in history.calls:
        if call.what == "send":
            if call.outcome == Outcome.REFUSED:
                yield Violation("the intake refused what it should take", (call,))
            continue
        if call.status is None:
            continue
        if call.status not in end.declared.get(ROUTES[call.what], frozenset()):
            yield Violation(f"{call.status} is not declared for {' '.join(ROUTES[call.what])}", (call,))
        elif call.status >= 500 and call.status != 503:
            yield Violation(f"a {call.status}", (call,))
        if call.status in LATER and not call.retry_after:
            yield Violation(f"a {call.status} without Retry-After", (call,))
        if call.status in UNDESERVED and call.status not in call.expects:
            yield Violation(f"a {call.status} that this call did not deserve", (call,))
