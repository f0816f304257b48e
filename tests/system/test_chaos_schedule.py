"""The schedule of a chaos run: the same for the same seed, and enough of each fault in half an hour."""

from collections import Counter
from itertools import pairwise

from tests.chaos.nemesis import LANES, schedule
from tests.chaos.soak import EVERY_SECONDS, GENTLE, MORE, gentle, leaked

HALF_AN_HOUR = 1800.0


def test_the_schedule_is_a_function_of_the_seed():
    assert schedule("1", HALF_AN_HOUR) == schedule("1", HALF_AN_HOUR)
    assert schedule("1", HALF_AN_HOUR) != schedule("2", HALF_AN_HOUR)


def test_a_longer_run_begins_as_a_shorter_one():
    long = schedule("1", HALF_AN_HOUR)
    assert [one for one in long if one.at < 90] == schedule("1", 90)


def test_half_an_hour_has_every_fault_and_enough_of_those_that_count():
    for seed in ("1", "2", "3"):
        counts = Counter(one.name for one in schedule(seed, HALF_AN_HOUR))
        assert set(counts) == {name for _, kinds in LANES.values() for name in kinds}
        assert (
            sum(count for name, count in counts.items() if "kill -9" in name or name == "freeze and kill Celery") > 330
        )
        assert counts["FLUSHALL"] > 22
        assert counts["restart Redis"] > 22
        assert counts["restart PostgreSQL"] > 12
        # Each cuts up to three; the API's always finds as many.
        assert 3 * counts["lost COMMIT answers, API"] > 110


def test_the_faults_of_lanes_meet():
    planned = schedule("1", HALF_AN_HOUR)
    close = [(a, b) for a, b in pairwise(planned) if b.at - a.at < 1 and a.lane != b.lane]
    assert len(close) > 100


def test_a_soak_has_a_fault_every_ten_seconds_and_lets_the_processes_live():
    planned = gentle("1", HALF_AN_HOUR)
    assert planned == gentle("1", HALF_AN_HOUR)
    assert [one.at for one in planned] == [n * EVERY_SECONDS for n in range(180)]
    assert {one.name for one in planned if one.lane in ("api", "background")} <= GENTLE["api"] | GENTLE["background"]


def test_a_soak_sees_each_thing_that_does_not_come_back():
    before = dict.fromkeys(MORE, 100.0)
    assert leaked(before, before) == []
    for name, (share, plus) in MORE.items():
        after = {**before, name: 100.0 * (1 + share) + plus + 0.1}
        assert [line.split(":")[0] for line in leaked(before, after)] == [name]
