"""The dispatcher: the parked polls of this process, and who gets which job.

One greenlet, the dispatcher, does all the claiming, so that what arrives together is claimed in one statement. It
runs when a poll comes, when a listener has caught an ID, and once a second; a parked poll costs a greenlet and an
entry here, no thread, no PostgreSQL connection and no Redis connection.

    a poll comes ──▶ take from its lists (LMOVE, heads first) ──▶ claim ──▶ answered, or parked
    parked       ──▶ one blocking BLMOVE per list that somebody waits for ──▶ claim ──▶ answered
    each second  ──▶ claim from PostgreSQL what the mirror missed; all claims come from there while Redis is away
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import gevent
import redis
import structlog
from gevent.event import Event
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from bridge.background import every
from bridge.crash_points import reach
from bridge.db import sqlstate
from bridge.errors import BridgeError
from bridge.jobs.claim import Claimed, InLine, loaded, next_in_line, replay
from bridge.long_poll import demand, hang_ups
from bridge.long_poll.assign import Find, Handed, by_queue, hand_out
from bridge.long_poll.fair_share import FairShare
from bridge.long_poll.listeners import Listeners
from bridge.long_poll.parked import Parked
from bridge.long_poll.poll import Poll
from bridge.queues import Entry, Queue
from bridge.redis_breaker import TAKE
from bridge.runtime import Runtime

log = structlog.get_logger("bridge.long_poll.dispatcher")

TICK_SECONDS = 1.0
REST_SECONDS = 0.25  # after a failed claim, so that an ID put back at the head is not tried again in a hot loop
MOST_STALE = 3  # times that a poll is offered what was no longer free before PostgreSQL is asked


class _Looked(NamedTuple):
    """What a look at the mirror found, whether the mirror can be trusted, and whether there may be more."""

    found: list[Entry]
    whole: bool = True
    cut: bool = False


class Dispatcher:
    """One per API process. `poll` is called by requests; everything else happens in the dispatcher."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mirror = runtime.mirror
        self._looking = runtime.single
        self._new: list[Poll] = []
        self._caught: list[Entry] = []
        self._busy: list[Entry] = []  # put back at the next tick
        self._wake = Event()
        self._turns = FairShare()
        self._second = self._closing = False
        self._unserved: set[Queue] = set()  # have jobs in PostgreSQL that somebody wants, and had no turn since
        self._listeners = Listeners(self._mirror, self._catch)
        self._parked = Parked(self._listeners)
        self._ticks = 0
        gevent.spawn(self._dispatch)
        every(TICK_SECONDS, "look each second", self._tick)
        every(hang_ups.LOOK_SECONDS, "notice hang-ups", self._parked.let_go_of_the_gone)

    def poll(self, poll: Poll, wait_seconds: float) -> list[Claimed]:
        """Claim up to `max_jobs` jobs, waiting up to `wait_seconds` for the first one.

        A repeated `claim_id` gets what it was given before (`poll.again`), and so does a poll that was refused, which
        waits for nothing. Raises sqlalchemy.exc.SQLAlchemyError when PostgreSQL does not answer the first look; once
        parked, a poll waits for it to come back. Raises bridge.errors.BridgeError when it is turned away.
        """
        if poll.error is not None:
            wait_seconds = 0
        if self._closing:
            return []
        poll.parks = wait_seconds > 0
        self._new.append(poll)
        self._wake.set()
        if not poll.done.wait(wait_seconds or None):
            if poll.offered:  # A claim for it is under way: its outcome belongs to this answer.
                poll.parks = False
                poll.done.wait()
                return poll.jobs
            if poll.claim is None or self._closing:
                self._parked.answer(poll)
                return poll.jobs
            self._parked.leave(poll)
            # An earlier poll of the same claim, parked in another process, may have been given a job: a last look.
            poll.parks, poll.asked, poll.tries = False, False, 0
            self._new.append(poll)
            self._wake.set()
            poll.done.wait()
        if poll.error is not None:
            raise poll.error
        return poll.jobs

    @property
    def parked(self) -> int:
        """Return how many polls wait now."""
        return self._parked.count

    def parked_for(self) -> list[tuple[str, int]]:
        """Return (content type, waiting polls) of each queue that somebody waits for."""
        return [(queue.content_type, self._parked.waiting(queue)) for queue in self._parked.queues()]

    def close(self) -> None:
        """Answer every parked poll with nothing, and claim no more."""
        self._closing = True
        self._listeners.close()
        self._parked.let_go(lambda _: True)
        self._wake.set()

    def dismiss(self, key_id: UUID) -> None:
        """Answer the parked polls of a key with nothing: the key is no longer valid."""
        self._parked.let_go(lambda poll: poll.who.key_id == key_id)

    def waiting(self) -> set[Poll]:
        """Return the polls that wait now."""
        return self._parked.all()

    def turn_away(self, poll: Poll, why: BridgeError) -> None:
        """Answer a waiting poll with a refusal; not while a claim for it is under way."""
        if not poll.offered:
            poll.error = why
            self._parked.answer(poll)

    def _catch(self, entry: Entry) -> None:
        self._caught.append(entry)
        self._wake.set()

    def _tick(self) -> None:
        self._second = True
        self._wake.set()
        self._ticks += 1
        if self._ticks % 10 == 0:
            self._listeners.prune()
            self._turns.forget(self._parked.queues())

    def _dispatch(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            new, self._new = self._new, []
            caught, self._caught = self._caught, []
            second, self._second = self._second, False
            try:
                self._round(new, caught, second)
            except SQLAlchemyError as error:
                log.warning("claim_failed", error=type(error).__name__, sqlstate=sqlstate(error))
                self._quietly(self._mirror.put_back, caught)
                for poll in new:
                    if not poll.done.is_set():
                        poll.error = error
                        self._parked.answer(poll)
                gevent.sleep(REST_SECONDS)
            except Exception:  # The dispatcher is the heart of this process: it goes on, and says what happened.
                log.exception("dispatcher_failed")
                for poll in new:
                    self._parked.answer(poll)
                gevent.sleep(REST_SECONDS)
            if self._closing:  # whom a claim was under way for when it began, and who got nothing, would wait on
                self._parked.let_go(lambda _: True)

    def _round(self, new: list[Poll], caught: list[Entry], second: bool) -> None:
        if second:
            busy, self._busy = self._busy, []
            self._quietly(self._mirror.put_back, busy)
        self._replay(new)
        looked = self._look(new, caught, second)
        tried = self._hand_out(looked.found, new)
        empty = [poll for poll in new if not poll.done.is_set()]
        again = {poll for poll in empty if looked.cut or (poll in tried and poll.tries < MOST_STALE)}
        # PostgreSQL is asked for those who wait, each second, and for those who do not, before they go away empty.
        asked = set(self._parked.queues()) if second else set()
        for poll in empty:
            if not poll.asked and (not looked.whole or poll.tries >= MOST_STALE or not (poll.parks or poll in again)):
                poll.asked = True
                asked.update(poll.queues)
        if asked or self._unserved:
            self._hand_out_from_postgresql(asked, new)
        for poll in empty:
            if poll.done.is_set():
                continue
            if self._closing:
                self._parked.answer(poll)
            elif poll in again or not self._unserved.isdisjoint(poll.queues):
                # What it was offered was no longer free, or the batch was full before its turn.
                poll.tries += poll in tried
                self._new.append(poll)
                self._wake.set()
            elif not poll.parks:
                self._parked.answer(poll)
            else:
                self._parked.add(poll)

    def _replay(self, new: list[Poll]) -> None:
        """Give a repeated claim what it was given before, if anything; of several polls of it only the last goes on."""
        last = {poll.claim: poll for poll in sorted(new, key=lambda poll: poll.came) if poll.claim is not None}
        for poll in new:
            if poll.claim is not None and last[poll.claim] is not poll:
                self._parked.answer(poll)
        repeated = [poll for poll in last.values() if poll.tries == 0]
        if not repeated:
            return
        for poll in repeated:
            self._parked.supersede(poll)
        given = replay(self._runtime.driver, [poll.who for poll in repeated])
        for index, jobs in given.items():
            repeated[index].give_again(jobs)
        for index, poll in enumerate(repeated):
            if index in given or poll.error is not None:
                self._parked.answer(poll)

    def _look(self, new: list[Poll], caught: list[Entry], second: bool) -> _Looked:
        """Take from the mirror for the polls that are new and for the lists of which an ID was caught."""
        try:
            if self._mirror.breaker.away:
                return _Looked(caught, whole=False)
            wanted = demand.of_mirror(new, caught, self._parked, self._turns, self._mirror.lengths)
            if not wanted and not second:
                return _Looked(caught)
            taken = self._mirror.take(wanted)
            reach("claim.after_take", taken.entries)
        except redis.RedisError as error:
            self._mirror.breaker.failed(TAKE, error)
            return _Looked(caught, whole=False)
        cut = taken.whole and sum(wanted.values()) >= demand.BATCH
        return _Looked(caught + taken.entries, taken.whole, cut)

    def _hand_out(self, found: list[Entry], new: list[Poll]) -> set[Poll]:
        """Claim what was found for those who want it; return the polls that were offered something."""
        if not found:
            return set()
        try:
            handed = self._claim(lambda _: by_queue(found), new, locks=False)
        except SQLAlchemyError:
            self._quietly(self._mirror.put_back, found)
            raise
        self._busy.extend(handed.busy)
        self._quietly(self._mirror.settle, handed.settled)
        self._quietly(self._mirror.put_back, handed.free)
        return handed.tried

    def _hand_out_from_postgresql(self, asked: set[Queue], new: list[Poll]) -> None:
        """Claim from PostgreSQL what the mirror has missed, for all who want something of these queues.

        Queues that have nothing get no places. Those that had none left for them, or may have more, are `_unserved`
        and come in the next round, at once.
        """
        with_jobs = self._unserved
        if asked:
            with self._looking.connect() as connection:  # one round trip, which mostly finds nothing
                with_jobs = with_jobs | loaded(connection, asked)
        wanted = demand.of_postgresql(with_jobs, new, self._parked)
        places = demand.batch(wanted, self._turns)
        self._unserved = wanted.keys() - places.keys()
        if not places:
            return
        lines: list[InLine] = []

        def find(connection: Connection) -> InLine:
            lines.append(next_in_line(connection, places))
            return lines[0]

        handed = self._claim(find, new, locks=True)
        self._mirror.drop(handed.claimed)  # Their IDs may still be in the mirror, at the head.
        claimed = {entry.queue for entry in handed.claimed}
        for queue, count in places.items():
            self._turns.served(queue)
            may_have_more = queue in claimed and len(lines[0].found[queue]) == count
            if may_have_more or count < min(wanted[queue], demand.BATCH):
                self._unserved.add(queue)
        if self._unserved:
            self._wake.set()

    def _claim(self, find: Find, new: list[Poll], *, locks: bool) -> Handed:
        handed = hand_out(self._runtime, find, self._parked, new, locks=locks)
        for entry in handed.claimed:
            self._turns.served(entry.queue)
        return handed

    def _quietly(self, settle: Callable[[Sequence[Entry]], None], entries: Sequence[Entry]) -> None:
        """Tell Redis after the fact. It may fail: the sweep of the claimed lists finds what was missed."""
        try:
            if entries:
                settle(entries)
        except redis.RedisError as error:
            self._mirror.breaker.failed(settle.__name__, error)
