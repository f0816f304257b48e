"""Pair what was found with the polls that want it, and claim it for them: one step of the dispatcher."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple
from uuid import UUID

import gevent

from bridge.crash_points import reach
from bridge.jobs import report_changes
from bridge.jobs.claim import Fates, InLine, claim
from bridge.long_poll.fair_share import share_out
from bridge.long_poll.parked import Parked
from bridge.long_poll.poll import Poll
from bridge.queues import Entry, Queue
from bridge.runtime import Runtime

Withheld = set[tuple[str, UUID, str]]  # (job, key, worker): the worker has just released the job
Find = Callable[[Any], InLine]  # given the transaction's connection where it locks


class Handed(NamedTuple):
    """The outcomes of the IDs that were handed out."""

    tried: set[Poll]  # the polls that were offered something
    claimed: list[Entry]
    settled: list[Entry]  # claimed, or no longer available, or withheld from all who want it: out of the mirror
    free: list[Entry]  # nobody wants them: back to the head
    busy: list[Entry]  # somebody else is changing them, or the claim was full: back to the head in a while


def hand_out(runtime: Runtime, find: Find, parked: Parked, new: Sequence[Poll], *, locks: bool) -> Handed:
    """Claim what `find` finds for the parked polls and the new ones; answer the polls that got something.

    `locks`: `find` locks what it finds, in the transaction of the claim. Otherwise the claim is the only statement of
    the transaction, and commits itself.

    What is withheld from the first in line goes to others, in a transaction of its own: the locks of claims are taken
    in one order within a statement, so that no two processes wait for each other, but not across statements.
    Raises sqlalchemy.exc.SQLAlchemyError: then nothing of the transaction that failed was claimed.
    """
    handed = Handed(set(), [], [], [], [])
    whom: Withheld = set()
    withheld = _claim(runtime, find, parked, new, handed, whom, locks)
    if withheld:
        others = Handed(handed.tried, handed.claimed, handed.settled, [], handed.busy)
        left = _claim(runtime, lambda _: by_queue(withheld), parked, new, others, whom, False)
        # At the head again, a job withheld from all who wait here would be caught at once; PostgreSQL offers it later.
        handed.settled.extend(others.free + left)
    gevent.sleep(0)  # the polls that got something answer before Redis is told
    return handed


def _claim(
    runtime: Runtime, find: Find, parked: Parked, new: Sequence[Poll], handed: Handed, whom: Withheld, locks: bool
) -> list[Entry]:
    """Claim in one transaction with one statement; return what was withheld, and add to `whom` from which worker."""
    offered: set[Poll] = set()
    try:
        with runtime.engine.begin() if locks else nullcontext(runtime.driver) as connection:
            line = find(connection)
            whom |= line.withheld
            pairs, left = share_out(
                line.found,
                lambda queue: parked.candidates(queue, new),
                lambda entry, poll: (entry.job_id, poll.who.key_id, poll.who.worker_id) not in whom,
            )
            for _, poll in pairs:
                poll.offered = True
                offered.add(poll)
            offers = [(entry.job_id, poll.who) for entry, poll in pairs]
            fates = claim(connection, offers, runtime.settings.ack_seconds)
            for index, earlier in fates.again.items():
                pairs[index][1].give_again(earlier)
            for index, job in fates.claimed.items():
                pairs[index][1].jobs.append(job)
            reach("claim.before_commit", locks and fates.claimed)
        reach("claim.after_commit", fates.claimed)
        for index, job in fates.claimed.items():
            poll = pairs[index][1]
            report_changes.claimed(runtime, poll.who, job, poll.request_id)
    except BaseException:
        for poll in offered:
            poll.jobs.clear()
        raise
    finally:
        for poll in offered:
            poll.offered = False
            if poll.jobs or not (poll.parks or poll in new):
                parked.answer(poll)
    handed.tried.update(offered)
    handed.free.extend(left)
    return _sort(pairs, fates, handed, whom)


def _sort(pairs: list[tuple[Entry, Poll]], fates: Fates, handed: Handed, whom: Withheld) -> list[Entry]:
    """Note what became of each ID; return those that were withheld."""
    again = {pairs[index][1] for index in fates.again}
    withheld = []
    for index, (entry, poll) in enumerate(pairs):
        if index in fates.withheld:
            withheld.append(entry)
            whom.add((entry.job_id, poll.who.key_id, poll.who.worker_id))
        elif index in fates.busy:
            handed.busy.append(entry)
        elif index not in fates.claimed and poll in again:
            handed.free.append(entry)
        else:
            handed.settled.append(entry)
            if index in fates.claimed:
                handed.claimed.append(entry)
    return withheld


def by_queue(entries: Sequence[Entry]) -> InLine:
    """Group the IDs by queue."""
    queues: dict[Queue, list[Entry]] = {}
    for entry in entries:
        queues.setdefault(entry.queue, []).append(entry)
    return InLine(queues, set())
