"""Pair what was found with the polls that want it, and claim it for them: one step of the hub, in a transaction."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from bridge.claim import Outcome, claim
from bridge.pending import Entry, Queue
from bridge.poll import Poll
from bridge.turns import share_out


class Handed(NamedTuple):
    """What became of the IDs that were handed out."""

    tried: set[Poll]  # the polls that were offered something
    claimed: list[Entry]
    settled: list[Entry]  # claimed, no longer free, or shunned by all who want them: out of the mirror
    free: list[Entry]  # back to the head


def hand_out(
    connection: Connection,
    found: Mapping[Queue, list[Entry]],
    candidates: Callable[[Queue], Iterable[Poll]],
    ack_seconds: int,
    handed: Handed,
) -> None:
    """Claim for each poll what it gets, and note it there and in `handed`. Needs a commit before anybody is told.

    What a poll shuns, because its worker has just released it, is offered to the next one; not to one that has its
    jobs already, since a claim_id claims once.
    """
    shunned: set[tuple[str, Poll]] = set()
    while found:
        pairs, left = share_out(
            found,
            candidates,
            lambda entry, poll: not poll.jobs and (entry.job_id, poll) not in shunned,  # noqa: B023
        )
        # At the head again, a job that all who wait here shun would be caught at once; PostgreSQL offers it later.
        (handed.settled if shunned else handed.free).extend(left)
        for _, poll in pairs:
            poll.offered = True
            handed.tried.add(poll)
        outcome = claim(connection, [(entry.job_id, poll.who) for entry, poll in pairs], ack_seconds)
        shunned |= {(pairs[index][0].job_id, pairs[index][1]) for index in outcome.shunned}
        found = _give(pairs, outcome, handed)


def _give(pairs: list[tuple[Entry, Poll]], outcome: Outcome, handed: Handed) -> dict[Queue, list[Entry]]:
    """Note what each poll got; what its poll shuns, which is to be offered to another."""
    for index, earlier in outcome.again.items():
        pairs[index][1].give_again(earlier)
    again = {pairs[index][1] for index in outcome.again}
    shunned: dict[Queue, list[Entry]] = {}
    for index, (entry, poll) in enumerate(pairs):
        if index in outcome.claimed:
            poll.jobs.append(outcome.claimed[index])
            handed.claimed.append(entry)
        if index in outcome.shunned:
            shunned.setdefault(entry.queue, []).append(entry)
        elif poll in again:
            handed.free.append(entry)
        else:
            handed.settled.append(entry)
    return shunned
