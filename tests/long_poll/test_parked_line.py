"""Who stands in line is looked at no further than is needed, in order, whoever leaves the line meanwhile."""

from itertools import islice
from typing import cast

import pytest

from bridge.jobs.claim import Claimant
from bridge.long_poll.listeners import Listeners
from bridge.long_poll.parked import FEW, Parked
from bridge.long_poll.poll import Poll
from bridge.queues import Queue
from tests.support.core import KEY

AUDIO = Queue("default", "audio")
MANY = 10 * FEW


class Silent:
    """Listens for nothing."""

    def want(self, queue):
        pass

    rest = want


@pytest.fixture
def looks():
    return []


@pytest.fixture
def line(looks):
    """Parked polls, each of which notes that it is looked at, and a new one; every third client has gone."""
    parked = Parked(cast(Listeners, Silent()))

    def made(n):
        return Poll(Claimant(KEY.key_id, f"w{n}"), [AUDIO], 1, lambda: looks.append(n) or n % 3 == 2)

    polls = [made(n) for n in range(MANY)]
    for poll in polls:
        parked.add(poll)
    return parked, polls, made(MANY)


def names(polls):
    return [int(poll.who.worker_id[1:]) for poll in polls]


def test_they_come_in_order_and_the_gone_are_let_go(line, looks):
    parked, polls, new = line
    here = [n for n in range(MANY + 1) if n % 3 != 2]
    assert names(parked.candidates(AUDIO, [new])) == here
    assert looks == list(range(MANY + 1)), "each once"
    assert parked.count == len(here) - (MANY in here)
    assert all(poll.done.is_set() and poll.hung_up for poll in polls[2::3])


def test_no_more_are_looked_at_than_are_asked_for(line, looks):
    parked, _, _ = line
    assert names(islice(parked.candidates(AUDIO, []), 2)) == [0, 1]
    assert looks == [0, 1]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_who_is_answered_meanwhile_makes_nobody_be_passed_over_or_come_twice(line, every):
    parked, _, _ = line
    seen = []
    for n, poll in enumerate(parked.candidates(AUDIO, [])):
        seen.append(poll)
        if n % every == 0:
            parked.answer(poll)
    assert names(seen) == [n for n in range(MANY) if n % 3 != 2]
    assert not any(poll.done.is_set() for n, poll in enumerate(seen) if n % every)


def test_who_wants_nothing_more_is_passed_over(line, looks):
    parked, polls, _ = line
    for poll in polls[: 4 * FEW]:
        poll.jobs.append(object())
    assert names(islice(parked.candidates(AUDIO, []), 1)) == [next(n for n in range(4 * FEW, MANY) if n % 3 != 2)]
