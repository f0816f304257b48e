"""The hub: the parked polls of this process, and who gets which job.

One greenlet, the dispatcher, does all the claiming, so that what arrives together is claimed in one statement. It
runs when a poll comes, when a listener has caught an ID, and once a second; a parked poll costs a greenlet and an
entry here, no thread, no PostgreSQL connection and no Redis connection.

    a poll comes ──▶ take from its lists (LMOVE, heads first) ──▶ claim ──▶ answered, or parked
    parked       ──▶ one blocking BLMOVE per list that somebody waits for ──▶ claim ──▶ answered
    each second  ──▶ claim from PostgreSQL what the mirror missed; all claims come from there while Redis is away
"""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import gevent
import redis
import structlog
from gevent.event import Event
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from bridge.claim import Claimed, holds_a_job, next_in_line, replay
from bridge.ears import Ears
from bridge.errors import BridgeError
from bridge.hand_out import Handed, hand_out
from bridge.parked import Parked
from bridge.pending import Entry, Queue
from bridge.poll import Poll
from bridge.runtime import Runtime
from bridge.turns import Turns, plan

log = structlog.get_logger("bridge.hub")

TICK_SECONDS = 1.0
REST_SECONDS = 0.25  # after a failed claim, so that an ID put back at the head is not tried again in a hot loop
BATCH = 128  # IDs claimed in one statement
SPARE = 8  # looked at beyond what is wanted, for jobs that a poll may not have because its worker just released them
MOST_STALE = 3  # times that a poll is offered what was no longer free before PostgreSQL is asked
UNSAID_SECONDS = 10.0  # how long a poll that names no `wait` waits; existing clients stand still meanwhile


class Hub:
    """One per API process. `poll` is called by requests; everything else happens in the dispatcher."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mirror = runtime.mirror
        self._new: list[Poll] = []
        self._caught: list[Entry] = []
        self._wake = Event()
        self._turns = Turns()
        self._second = False
        self._closing = False
        self._ears = Ears(self._mirror, self._catch)
        self._parked = Parked(self._ears)
        self._greenlets = [gevent.spawn(self._dispatch), gevent.spawn(self._tick)]

    def poll(self, poll: Poll, wait_seconds: float | None) -> list[Claimed]:
        """Claim up to `max_jobs`, waiting for the first one. `None`: 10 s, or 0 while the worker holds a job.

        A repeated `claim_id` gets what it was given before (`poll.again`). Raises sqlalchemy.exc.SQLAlchemyError when
        PostgreSQL does not answer the first look; once parked, a poll waits for it to come back.
        Raises bridge.errors.BridgeError when it is turned away.
        """
        if wait_seconds is None:
            with self._runtime.engine.connect() as connection:
                wait_seconds = 0 if holds_a_job(connection, poll.who) else UNSAID_SECONDS
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
            poll.parks = False
            self._new.append(poll)
            self._wake.set()
            poll.done.wait()
        if poll.error is not None:
            raise poll.error
        return poll.jobs

    @property
    def parked(self) -> int:
        """How many polls wait now."""
        return self._parked.count

    def close(self) -> None:
        """Answer every parked poll with nothing, and claim no more."""
        self._closing = True
        self._ears.close()
        self._parked.let_go(lambda _: True)
        self._wake.set()

    def dismiss(self, key_id: UUID) -> None:
        """Answer the parked polls of a key with nothing: it counts no more."""
        self._parked.let_go(lambda poll: poll.who.key_id == key_id)

    def waiting(self) -> set[Poll]:
        """The polls that wait now."""
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
        seconds = 0
        while True:
            gevent.sleep(TICK_SECONDS)
            self._second = True
            self._wake.set()
            seconds += 1
            if seconds % 10 == 0:
                self._ears.prune()
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
                log.warning("claiming failed", error=type(error).__name__)
                self._quietly(self._mirror.put_back, caught)
                for poll in new:
                    poll.error = error
                    self._parked.answer(poll)
                gevent.sleep(REST_SECONDS)
            except Exception:  # The dispatcher is the heart of this process: it goes on, and says what happened.
                log.exception("the dispatcher failed")
                for poll in new:
                    self._parked.answer(poll)
                gevent.sleep(REST_SECONDS)

    def _round(self, new: list[Poll], caught: list[Entry], second: bool) -> None:
        self._replay(new)
        found, mirror_serves = self._look(new, caught, second)
        tried = self._hand_out(found, new)
        from_postgresql = (
            not mirror_serves or (second and self._parked.count > 0) or any(poll.tries >= MOST_STALE for poll in new)
        )
        if from_postgresql:
            self._hand_out_from_postgresql(new)
        for poll in new:
            if poll.done.is_set():
                continue
            if poll in tried and not from_postgresql and not self._closing:
                # What it was offered was no longer free; there may be more.
                poll.tries += 1
                self._new.append(poll)
                self._wake.set()
            elif self._closing or not poll.parks:
                self._parked.answer(poll)
            else:
                self._parked.add(poll)

    def _replay(self, new: list[Poll]) -> None:
        """Give what a repeated claim was given before, if it was given something."""
        repeated = [poll for poll in new if poll.claim is not None and poll.tries == 0]
        if not repeated:
            return
        for poll in repeated:
            self._parked.supersede(poll)
        with self._runtime.engine.connect() as connection:
            given = replay(connection, [poll.who for poll in repeated])
        for index, jobs in given.items():
            repeated[index].give_again(jobs)
            self._parked.answer(repeated[index])

    def _look(self, new: list[Poll], caught: list[Entry], second: bool) -> tuple[list[Entry], bool]:
        """What the mirror has for the polls that are new and for the lists that stirred; whether it can be trusted."""
        wanted: dict[Queue, int] = {}
        try:
            if self._mirror.away:
                return caught, False
            if any(len(poll.queues) > 1 for poll in new):
                lengths = self._mirror.lengths({queue for poll in new for queue in poll.queues})
                wanted = plan(new, lengths, self._turns)
            else:
                for poll in new:
                    wanted[poll.queues[0]] = wanted.get(poll.queues[0], 0) + poll.wants
            stirred = {entry.queue for entry in caught}
            if second:
                stirred |= {queue for queue in self._parked.queues() if not self._ears.hears(queue)}
            for queue in stirred:
                wanted[queue] = wanted.get(queue, 0) + self._parked.waiting(queue)
            for entry in caught:
                wanted[entry.queue] -= 1
            wanted = {queue: min(count, BATCH) for queue, count in wanted.items() if count > 0}
            if not wanted and not second:
                return caught, True
            taken = self._mirror.take(wanted)
        except redis.RedisError as error:
            self._mirror.failed("take", error)
            return caught, False
        return caught + (taken or []), taken is not None

    def _hand_out(self, found: list[Entry], new: list[Poll]) -> set[Poll]:
        """Claim what was found for those who want it; the polls that were offered something."""
        if not found:
            return set()
        by_queue: dict[Queue, list[Entry]] = {}
        for entry in found:
            by_queue.setdefault(entry.queue, []).append(entry)
        try:
            handed = self._claim(lambda _: by_queue, new)
        except SQLAlchemyError:
            self._quietly(self._mirror.put_back, found)
            raise
        self._quietly(self._mirror.settle, handed.settled)
        self._quietly(self._mirror.put_back, handed.free)
        return handed.tried

    def _hand_out_from_postgresql(self, new: list[Poll]) -> None:
        """The same from the truth itself, for all who wait: what the mirror has missed, or cannot tell."""
        wanted = {queue: self._parked.waiting(queue) + SPARE for queue in self._parked.queues()}
        for poll in new:
            for queue in poll.queues:
                wanted[queue] = wanted.get(queue, SPARE) + poll.wants
        wanted = {queue: min(wanted[queue], BATCH) for queue in self._turns.order(wanted)}
        handed = self._claim(lambda connection: next_in_line(connection, wanted), new)
        self._mirror.drop(handed.claimed)  # Their IDs may still stand in the mirror, at the head.

    def _claim(self, find: Callable[[Connection], Mapping[Queue, list[Entry]]], new: list[Poll]) -> Handed:
        """Claim what `find` finds, in one transaction; those who got something are answered once it has committed."""
        handed = Handed(set(), [], [], [])
        try:
            with self._runtime.engine.begin() as connection:
                hand_out(
                    connection,
                    find(connection),
                    lambda queue: self._parked.candidates(queue, new),
                    self._runtime.settings.ack_seconds,
                    handed,
                )
        except SQLAlchemyError:
            for poll in handed.tried:
                poll.jobs.clear()
            raise
        finally:
            for poll in handed.tried:
                poll.offered = False
                if poll.jobs or not (poll.parks or poll in new):
                    self._parked.answer(poll)
        for entry in handed.claimed:
            self._turns.served(entry.queue)
        return handed

    def _quietly(self, settle: Callable[[Sequence[Entry]], None], entries: Sequence[Entry]) -> None:
        """What Redis is told after the fact may fail: the sweep of the claimed lists will find it."""
        try:
            if entries:
                settle(entries)
        except redis.RedisError as error:
            self._mirror.failed(settle.__name__, error)
