"""What waits at the same moment is written together, and a failure is nobody else's."""

from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event
from sqlalchemy.exc import DataError, OperationalError

from bridge.natural_batches import Batches
from bridge.runtime import Together


class Writes:
    """A write that stands still until it is let go, and refuses what it is told to."""

    def __init__(self):
        self.batches, self.followed, self.refused = [], [], {}
        self.go = Event()
        self.together = Together(self._write, self._follow)

    def _write(self, runtime, ones):
        self.batches.append(list(ones))
        if len(self.batches) == 1:
            self.go.wait()
        for one in ones:
            if one in self.refused:
                raise self.refused[one]
        return [f"{one} is written" for one in ones]

    def _follow(self, runtime, ones, outcomes):
        self.followed.extend(ones)
        if "follow fails" in ones:
            raise RuntimeError("after the commit")

    def ask(self, batches, *ones):
        asked = [gevent.spawn(batches, self.together, None, one) for one in ones]
        gevent.sleep(0)
        return asked

    def let_go(self, batches, *ones):
        """Ask, let all be written, and return what each is told."""
        asked = self.ask(batches, *ones)
        self.go.set()
        return results(asked)


@pytest.fixture
def writes():
    return Writes()


@pytest.fixture
def gathering(writes):
    """Batches that have just written several together, so that the next ones wait for each other."""
    batches = Batches()
    writes.let_go(batches, *"abc")
    return batches


def refusal(kind, sqlstate):
    return kind("", {}, SimpleNamespace(pgcode=sqlstate))


ROW = refusal(DataError, "22003")
LOST = refusal(OperationalError, None)


def results(asked):
    gevent.joinall(asked, timeout=30)
    return [one.exception or one.value for one in asked]


def test_what_comes_alone_is_written_at_once_and_what_comes_meanwhile_together(writes):
    batches = Batches(most=3)
    asked = writes.ask(batches, *"abcdefgh")
    assert writes.batches == [["a"]], "the others wait"
    writes.go.set()
    assert results(asked) == [f"{one} is written" for one in "abcdefgh"]
    assert writes.batches[1:] == [["b", "c", "d"], ["e", "f", "g"], ["h"]]
    assert writes.followed == list("abcdefgh")


def test_where_several_went_together_the_next_ones_do_too(writes, gathering):
    for next_ones in ("def", "g", "hi"):
        results(writes.ask(gathering, *next_ones))
    assert writes.batches == [["a"], ["b", "c"], ["d", "e", "f"], ["g"], ["h"], ["i"]]


def test_who_waits_long_for_a_lane_has_another_one(writes):
    batches = Batches()
    asked = writes.ask(batches, *"abc")
    assert results(asked[1:]) == ["b is written", "c is written"]
    assert not asked[0].ready()
    writes.go.set()
    assert results(asked[:1]) == ["a is written"]


@pytest.mark.parametrize("poison", [ROW, ValueError("no text"), refusal(OperationalError, "40P01")])
def test_a_row_that_is_refused_fails_alone(writes, poison):
    writes.refused["d"] = poison
    told = writes.let_go(Batches(), *"abcdef")
    assert told == [poison if one == "d" else f"{one} is written" for one in "abcdef"]
    assert writes.batches[1:] == [list("bcdef"), *map(list, "bcdef")]
    assert writes.followed == list("abcef")


@pytest.mark.parametrize("failure", [LOST, refusal(OperationalError, "40003"), refusal(OperationalError, "57P01")])
def test_what_may_be_written_is_not_written_again(writes, failure):
    writes.refused["d"] = failure
    assert writes.let_go(Batches(), *"abcdef") == ["a is written", *[failure] * 5]
    assert writes.batches[1:] == [list("bcdef")]


def test_a_failure_after_the_commit_repeats_nothing(writes):
    told = writes.let_go(Batches(), "a", "b", "follow fails")
    assert told[:1] == ["a is written"]
    assert [str(error) for error in told[1:]] == ["after the commit"] * 2
    assert writes.batches[1:] == [["b", "follow fails"]]


def test_a_request_that_ends_takes_nobody_with_it(writes):
    batches = Batches()
    asked = writes.ask(batches, *"abcd")
    asked[2].kill()  # it waits
    asked[0].kill()  # it writes for itself, in a lane that others wait for
    writes.go.set()
    assert results([asked[1], asked[3]]) == ["b is written", "d is written"]
    assert writes.batches == [["a"], ["b", "d"]]
    assert results(writes.ask(batches, *"ef")) == ["e is written", "f is written"]


def test_those_that_all_end_before_a_lane_begins_are_not_written(writes, gathering):
    late = [gevent.spawn(gathering, writes.together, None, one) for one in "cd"]
    gevent.get_hub().loop.run_callback(lambda: [one.throw() for one in late])  # after both have asked
    gevent.joinall(late, timeout=30)
    assert results(writes.ask(gathering, "e")) == ["e is written"]
    assert [one for ones in writes.batches for one in ones] == ["a", "b", "c", "e"]


def test_who_ends_while_its_batch_is_written_changes_nothing_for_the_others(writes, gathering):
    writes.batches.clear()  # the next write stands still as well
    writes.go.clear()
    asked = writes.ask(gathering, *"de")
    gevent.sleep(0)
    assert writes.batches == [["d", "e"]]
    asked[0].kill()
    writes.go.set()
    assert results(asked[1:]) == ["e is written"]


def test_who_waits_for_a_lane_that_is_ended_is_told_and_does_not_wait_on(writes):
    batches = Batches()
    writes.refused["c"] = gevent.GreenletExit()
    told = writes.let_go(batches, *"abc")
    assert told[0] == "a is written"
    assert [type(one) for one in told[1:]] == [gevent.GreenletExit] * 2
    assert results(writes.ask(batches, "d")) == ["d is written"]


def test_after_a_batch_no_lane_is_taken(writes):
    batches = Batches()
    writes.go.set()
    for _ in range(3):
        assert len(results(writes.ask(batches, *"abcdef"))) == 6
    (line,) = batches._lines.values()
    assert (line._writing, line._gathering, line._late.active) == (0, False, False)
