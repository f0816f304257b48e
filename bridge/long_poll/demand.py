"""How much is wanted of which queue, in one statement's measure: places belong to queues that have something."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from bridge.long_poll.fair_share import FairShare, plan
from bridge.long_poll.parked import Parked
from bridge.long_poll.poll import Poll
from bridge.queues import Entry, Queue

BATCH = 128  # IDs claimed in one statement, of all queues together: each may cost a lock
SPARE = 8  # looked at beyond what is wanted, for jobs that a poll may not have because its worker just released them


def of_mirror(
    new: Sequence[Poll],
    caught: Iterable[Entry],
    parked: Parked,
    turns: FairShare,
    lengths: Callable[[Iterable[Queue]], Mapping[Queue, int]],
) -> dict[Queue, int]:
    """Return how much to take of each list, for the new polls and for those that wait for a queue of `caught`.

    A lone job is claimed without a look: if more came with it, a listener catches them during the claim, and the next
    round looks. Where places are few, `lengths` is asked, so that empty lists take none: a sum of BATCH means that
    there may be more.
    """
    stirred = Counter(entry.queue for entry in caught)
    if not new and all(count == 1 for count in stirred.values()):
        return {}
    wanted: Counter[Queue] = Counter()
    for poll in new:
        for queue in poll.queues:
            wanted[queue] += poll.wants
    for queue, count in stirred.items():
        wanted[queue] += max(0, parked.waiting(queue) - count)
    if sum(wanted.values()) >= BATCH or any(len(poll.queues) > 1 for poll in new):
        there = lengths(wanted)
        wanted = Counter(plan(new, there, turns, BATCH))
        for queue, count in stirred.items():
            wanted[queue] += max(0, min(parked.waiting(queue) - count, there[queue] - wanted[queue]))
    return batch({queue: count for queue, count in wanted.items() if count > 0}, turns)


def of_postgresql(queues: Iterable[Queue], new: Sequence[Poll], parked: Parked) -> dict[Queue, int]:
    """Return how many jobs to look at of each of these queues; queues of which nobody wants anything are left out."""
    wanted: Counter[Queue] = Counter({queue: parked.waiting(queue) for queue in queues})
    for poll in new:
        for queue in poll.queues:
            if queue in wanted:
                wanted[queue] += poll.wants
    return {queue: count + SPARE for queue, count in wanted.items() if count}


def batch(wanted: Mapping[Queue, int], turns: FairShare) -> dict[Queue, int]:
    """Limit the demand to what one statement takes; the queue that has waited longest for its turn comes first."""
    places: dict[Queue, int] = {}
    left = BATCH
    for queue in turns.order(wanted):
        if (count := min(wanted[queue], left)) > 0:
            places[queue] = count
            left -= count
    return places
