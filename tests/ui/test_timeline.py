"""The picture of a job's life: where each bar is, from rows, without a server."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from api.ui.render import number, size
from api.ui.timeline import MOST, WIDTH, timeline

BORN = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


def drawn(attempts, now=100.0, before=None, **job):
    given = {"created_at": BORN, "completed_at": None, "started_at": None, "status": "pending", "attempt": 1,
             "worker_id": "w", **job}  # fmt: skip
    rows = [
        SimpleNamespace(attempt=n + 1, how="timed_out", worker_id="w", claimed_at=at(begun), ended_at=at(over))
        for n, (begun, over) in enumerate(attempts)
    ]
    past = SimpleNamespace(attempts=rows, attempts_before=before, requests=[])
    return timeline(SimpleNamespace(**given), past, at(now))  # type: ignore[arg-type]


def kinds(picture):
    return [bar.kind for bar in picture.bars]


def test_waits_lie_between_attempts_that_do_not_follow_at_once():
    picture = drawn([(0, 20), (20, 40), (60, 80)])
    assert kinds(picture) == ["timed_out", "timed_out", "waiting", "timed_out", "waiting"]
    assert [round(bar.x) for bar in picture.bars] == [0, 200, 400, 600, 800]
    assert sum(bar.width for bar in picture.bars) == WIDTH
    assert not picture.more


def test_what_runs_at_once_has_not_waited():
    assert kinds(drawn([], status="processing", started_at=BORN)) == ["running"]
    assert kinds(drawn([], status="processing", started_at=at(10))) == ["waiting", "running"]


def test_of_many_attempts_the_last_are_drawn_and_the_axis_begins_with_them():
    picture = drawn([(n, n + 1) for n in range(MOST + 10)], now=MOST + 20)
    assert len(picture.bars) == MOST
    assert (picture.more, picture.began) == (True, at(11))


def test_where_earlier_attempts_were_not_read_the_axis_begins_with_the_first_that_was():
    picture = drawn([(50, 60)], before="cursor", status="completed", completed_at=at(60))
    assert (kinds(picture), picture.began, picture.more) == (["timed_out"], at(50), True)


def test_a_count_that_is_not_known_is_a_dash():
    assert (number(None), size(None), number(1234567.4)) == ("–", "–", "1\u202f234\u202f567")
