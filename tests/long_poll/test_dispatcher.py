"""The dispatcher of one process, called directly: who is answered when a round fails, or a poll's time is over."""

from typing import cast

import gevent
import pytest
from sqlalchemy.exc import OperationalError

from bridge.errors import Paused
from bridge.jobs.claim import Claimant
from bridge.long_poll import pause_watch
from bridge.long_poll.demand import of_mirror
from bridge.long_poll.dispatcher import Dispatcher
from bridge.long_poll.fair_share import FairShare
from bridge.long_poll.listeners import Listeners
from bridge.long_poll.parked import Parked
from bridge.long_poll.pause_watch import PauseWatch
from bridge.long_poll.poll import Poll
from bridge.queues import Entry, Queue
from models.job_state import Priority
from tests.long_poll.test_parked_line import Silent
from tests.support.core import KEY
from tests.support.racing import meanwhile

AUDIO, VIDEO = Queue("default", "audio"), Queue("default", "video")
CLAIM = "FOR UPDATE OF j SKIP LOCKED"


@pytest.fixture
def dispatcher(core):
    dispatcher = Dispatcher(core.runtime)
    dispatcher._parked = Parked(cast(Listeners, Silent()))  # a real listener would hold up this process
    yield dispatcher
    dispatcher.close()


def poll(*queues, worker="w1", claim_id=None):
    return Poll(Claimant(KEY.key_id, worker, 60, claim_id, "default"), queues or (AUDIO,), 1, lambda: False)


def ids(jobs):
    return [str(job.job_id) for job in jobs]


def test_a_mistake_in_one_round_answers_its_polls_and_the_next_round_goes_on(core, dispatcher, monkeypatch):
    def mistake(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(dispatcher, "_hand_out", mistake)
        assert dispatcher.poll(poll(), 30) == []
    job_id = core.create()
    assert ids(dispatcher.poll(poll(), 30)) == [job_id]


def test_a_poll_whose_time_ends_amid_its_claim_gets_what_it_claims_and_is_not_turned_away(core, dispatcher):
    job_id, mine = core.create(), poll()

    def time_ends():
        with gevent.Timeout(30):
            while mine.parks:
                gevent.sleep(0.01)
        dispatcher.turn_away(mine, Paused("Paused meanwhile.", retry_after=1))

    with meanwhile(core.engine, CLAIM, time_ends):
        assert ids(dispatcher.poll(mine, 0.1)) == [job_id]
    assert mine.error is None


def test_where_postgresql_fails_who_was_answered_before_stays_answered(core, dispatcher):
    def fails():
        raise OperationalError("REPLAY", {}, Exception("PostgreSQL is away"))

    with meanwhile(core.engine, "WITH ORDINALITY AS o(key, worker, claim, n)", fails):
        asked = [gevent.spawn(dispatcher.poll, poll(claim_id="c1"), 0) for _ in range(2)]
        gevent.joinall(asked, timeout=30)
    assert asked[0].value == [], "an earlier poll of the same claim"
    assert isinstance(asked[1].exception, OperationalError)


def test_where_polls_name_several_queues_a_caught_job_counts_towards_those_that_wait(dispatcher):
    for n in range(3):
        dispatcher._parked.add(poll(AUDIO, worker=f"w{n}"))
    caught = [Entry(AUDIO, Priority.NORMAL, "x")]
    wanted = of_mirror([poll(AUDIO, VIDEO)], caught, dispatcher._parked, FairShare(), lambda _: {AUDIO: 9, VIDEO: 0})
    assert wanted == {AUDIO: 3}, "one for the new poll, and two for the three that wait, for whom one was caught"


def test_a_lone_caught_job_costs_no_look_at_the_mirror_and_the_second_one_does(dispatcher):
    for n in range(200):
        dispatcher._parked.add(poll(AUDIO, worker=f"w{n}"))
    one, another = (Entry(AUDIO, Priority.NORMAL, job_id) for job_id in "xy")
    there = lambda _: {AUDIO: 50}  # noqa: E731
    assert of_mirror([], [one], dispatcher._parked, FairShare(), there) == {}
    assert of_mirror([], [one, another], dispatcher._parked, FairShare(), there) == {AUDIO: 50}
    assert of_mirror([], [one, Entry(VIDEO, Priority.NORMAL, "z")], dispatcher._parked, FairShare(), there) == {}


def test_no_more_queues_are_noted_as_asked_for_than_there_is_room_for(core, dispatcher, monkeypatch):
    monkeypatch.setattr(pause_watch, "MOST_ASKED", 2)
    watch = PauseWatch(core.runtime, dispatcher)
    for number in range(5):
        for kind in ("asks", "waits"):
            core.create(f"{kind}-{number}", unserved_after_seconds=600)
        watch.admit(poll(Queue("default", f"asks-{number}")))
        dispatcher._parked.add(poll(Queue("default", f"waits-{number}")))
    for kind in ("asks", "waits"):
        watch._note_asked()
        noted = core.sql("SELECT content_type FROM queue_asks WHERE content_type LIKE :kind", kind=f"{kind}-%")
        assert len(noted) == 2
