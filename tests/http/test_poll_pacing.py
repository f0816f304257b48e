"""Polls that come at one moment: they are let in some at a time, in the order in which they came."""

from itertools import pairwise

import gevent
import pytest

from api.http.poll_pacing import AT_ONCE, MANY, PollPacing


@pytest.fixture
def pacing():
    return PollPacing()


def come(pacing, count: int) -> list[int]:
    """So many polls come at one moment; a list in which each notes that it was let in."""
    let_in: list[int] = []

    def poll(number: int) -> None:
        pacing.wait()
        let_in.append(number)

    for number in range(count):
        gevent.spawn(poll, number)
    gevent.sleep(0)  # one round of the loop: all have come
    return let_in


def until_all_are_in(let_in, count: int) -> list[int]:
    """How many had been let in at each look."""
    looks = []
    with gevent.Timeout(30):
        while len(let_in) < count:
            looks.append(len(let_in))
            gevent.sleep(0)
    return [*looks, len(let_in)]


def test_few_wait_for_nothing_and_many_for_their_turn(pacing):
    assert come(pacing, AT_ONCE - 1) == list(range(AT_ONCE - 1))
    let_in = come(pacing, 10 * AT_ONCE)
    assert pacing.long
    looks = until_all_are_in(let_in, 10 * AT_ONCE)
    assert let_in == list(range(10 * AT_ONCE))
    assert max(after - before for before, after in pairwise(looks)) <= AT_ONCE
    assert not pacing.long


def test_while_many_connections_come_polls_go_on_one_by_one(pacing):
    let_in = come(pacing, 3 * AT_ONCE)
    for _ in range(MANY):
        pacing.came()
    looks = until_all_are_in(let_in, 3 * AT_ONCE)
    steps = [after - before for before, after in pairwise(looks) if after > before]
    assert steps[0] == 1
    assert AT_ONCE in steps[1:]


def test_after_a_pause_polls_wait_for_nothing_again(pacing):
    until_all_are_in(come(pacing, 3 * AT_ONCE), 3 * AT_ONCE)
    with gevent.Timeout(30):
        while pacing._let_in:
            gevent.sleep(0)
    assert come(pacing, 1) == [0]
