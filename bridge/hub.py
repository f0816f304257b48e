"""The hub: the parked polls of this process, and who gets which job.

One greenlet, the dispatcher, does all the claiming, so that what arrives together is claimed in one statement. It
runs when a poll comes, when a listener has caught an ID, and once a second; a parked poll costs a greenlet and an
entry here, no thread, no PostgreSQL connection and no Redis connection.

    a poll comes ──▶ take from its lists (LMOVE, heads first) ──▶ claim ──▶ answered, or parked
    parked       ──▶ one blocking BLMOVE per list that somebody waits for ──▶ claim ──▶ answered
    each second  ──▶ claim from PostgreSQL what the mirror missed; all claims come from there while Redis is away
"""

from collections.abc import Callable, Iterable, Sequence

import gevent
import redis
import structlog
from gevent.event import Event
from sqlalchemy.exc import SQLAlchemyError

from bridge.claim import Claimant, Claimed, claim, holds_a_job, next_in_line, replay
from bridge.ears import Ears
from bridge.pending import Entry, Queue
from bridge.poll import Poll
from bridge.runtime import Runtime
from bridge.turns import Turns, plan, share_out
from models.state import Priority

log = structlog.get_logger("bridge.hub")

TICK_SECONDS = 1.0
REST_SECONDS = 0.25  # after a failed claim, so that an ID put back at the head is not tried again in a hot loop
BATCH = 128  # IDs claimed in one statement
SPARE = 8  # looked at beyond what is wanted, for jobs that a poll may not have because its worker just released them
UNSAID_SECONDS = 10.0  # how long a poll that names no `wait` waits; existing clients stand still meanwhile


class Hub:
    """One per API process. `poll` is called by requests; everything else happens in the dispatcher."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mirror = runtime.mirror
        self._parked: dict[Queue, dict[Poll, None]] = {}
        self._new: list[Poll] = []
        self._caught: list[Entry] = []
        self._wake = Event()
        self._turns = Turns()
        self._second = False
        self._closing = False
        self.parked = 0  # how many polls wait now
        self._ears = Ears(self._mirror, self._catch)
        self._greenlets = [gevent.spawn(self._dispatch), gevent.spawn(self._tick)]

    def poll(self, poll: Poll, wait_seconds: float | None) -> list[Claimed]:
        """Claim up to `max_jobs`, waiting for the first one. `None`: 10 s, or 0 while the worker holds a job.

        A repeated `claim_id` gets what it was given before. Raises sqlalchemy.exc.SQLAlchemyError when PostgreSQL
        does not answer the first look; once parked, a poll waits for it to come back.
        """
        if poll.who.claim_id is not None and (again := self._given(poll.who)):
            return again
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
            self._answer(poll)
            if poll.who.claim_id is not None:
                # An earlier poll of the same claim, parked in another process, may have been given the job.
                return self._given(poll.who)
        if poll.error is not None:
            raise poll.error
        return poll.jobs

    def close(self) -> None:
        """Answer every parked poll with nothing, and claim no more."""
        self._closing = True
        self._ears.close()
        for polls in list(self._parked.values()):
            for poll in list(polls):
                if not poll.offered:
                    self._answer(poll)
        self._wake.set()

    def _given(self, who: Claimant) -> list[Claimed]:
        with self._runtime.engine.connect() as connection:
            return replay(connection, who)

    def _catch(self, entry: Entry) -> None:
        self._caught.append(entry)
        self._wake.set()

    def _tick(self) -> None:
        seconds = 0
        while True:
            gevent.sleep(TICK_SECONDS)
            self._second = True
            self._wake.set()
            if seconds % 10 == 0:
                try:
                    self._mirror.beat()
                except redis.RedisError as error:
                    self._mirror.failed("beat", error)
                self._ears.prune()
                self._turns.forget(self._parked)
            seconds += 1

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
                for poll in new:
                    poll.error = error
                    self._answer(poll)
                gevent.sleep(REST_SECONDS)
            except Exception:  # The dispatcher is the heart of this process: it goes on, and says what happened.
                log.exception("the dispatcher failed")
                for poll in new:
                    self._answer(poll)
                gevent.sleep(REST_SECONDS)

    def _round(self, new: list[Poll], caught: list[Entry], second: bool) -> None:
        found, mirror_serves = self._look(new, caught, second)
        tried = self._hand_out(found, new)
        if not mirror_serves or (second and self._parked):
            tried |= self._hand_out_from_postgresql(new)
        for poll in new:
            if poll.done.is_set():
                continue
            if self._closing or not poll.parks:
                self._answer(poll)
            elif poll in tried and mirror_serves:
                # What it was offered was no longer free; there may be more.
                self._new.append(poll)
                self._wake.set()
            else:
                self._park(poll)

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
                stirred |= {queue for queue in self._parked if not self._ears.hears(queue)}
            for queue in stirred:
                wanted[queue] = wanted.get(queue, 0) + len(self._parked.get(queue, ()))
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
        pairs, left = share_out(by_queue, lambda queue: self._candidates(queue, new))
        try:
            claimed = self._claim([(entry.job_id, poll) for entry, poll in pairs])
        except SQLAlchemyError:
            self._quietly(self._mirror.put_back, found)
            raise
        for entry, _ in pairs:
            if entry.job_id in claimed:
                self._turns.served(entry.queue)
        self._quietly(self._mirror.settle, [entry for entry, _ in pairs])
        self._quietly(self._mirror.put_back, left)
        return {poll for _, poll in pairs}

    def _hand_out_from_postgresql(self, new: list[Poll]) -> set[Poll]:
        """The same from the truth itself, for all who wait: what the mirror has missed, or cannot tell."""
        wanted: dict[Queue, int] = {queue: len(polls) + SPARE for queue, polls in self._parked.items()}
        for poll in new:
            for queue in poll.queues:
                wanted[queue] = wanted.get(queue, SPARE) + poll.wants
        wanted = {queue: min(wanted[queue], BATCH) for queue in self._turns.order(wanted)}
        with self._runtime.engine.begin() as connection:
            found = next_in_line(connection, wanted)
            ordered = {queue: found[queue] for queue in wanted if queue in found}
            pairs, _ = share_out(ordered, lambda queue: self._candidates(queue, new))
            offers = self._offered([(job_id, poll) for job_id, poll in pairs])
            try:
                claimed = claim(connection, offers, self._runtime.settings.ack_seconds)
            except SQLAlchemyError:
                self._withdraw([poll for _, poll in pairs])
                raise
        self._give(pairs, claimed)
        tenants = {job_id: queue for queue, ids in found.items() for job_id in ids}
        ranks = list(Priority)
        for job_id in claimed:
            self._turns.served(tenants[job_id])
        # Their IDs may still stand in the mirror, at the head.
        self._mirror.drop(Entry(tenants[job_id], ranks[job.priority], job_id) for job_id, job in claimed.items())
        return {poll for _, poll in pairs}

    def _candidates(self, queue: Queue, new: list[Poll]) -> Iterable[Poll]:
        """Who wants this queue's jobs, parked polls before new ones; those who have hung up are let go."""
        for poll in [*self._parked.get(queue, ()), *(poll for poll in new if queue in poll.queues)]:
            if poll.wants <= 0:
                continue
            if poll.gone():
                self._answer(poll)
                continue
            yield poll

    def _claim(self, pairs: list[tuple[str, Poll]]) -> dict[str, Claimed]:
        offers = self._offered(pairs)
        if not offers:
            return {}
        try:
            with self._runtime.engine.begin() as connection:
                claimed = claim(connection, offers, self._runtime.settings.ack_seconds)
        except SQLAlchemyError:
            self._withdraw([poll for _, poll in pairs])
            raise
        self._give(pairs, claimed)
        return claimed

    def _offered(self, pairs: list[tuple[str, Poll]]) -> list[tuple[str, Claimant]]:
        for _, poll in pairs:
            poll.offered = True
        return [(job_id, poll.who) for job_id, poll in pairs]

    def _give(self, pairs: list[tuple[str, Poll]], claimed: dict[str, Claimed]) -> None:
        for job_id, poll in pairs:
            if job_id in claimed:
                poll.jobs.append(claimed[job_id])
        self._withdraw([poll for _, poll in pairs])

    def _withdraw(self, polls: list[Poll]) -> None:
        """The claim for these polls is over: answer those that got something, or whose wait ended meanwhile."""
        for poll in polls:
            poll.offered = False
            if poll.jobs or not poll.parks:
                self._answer(poll)

    def _park(self, poll: Poll) -> None:
        for queue in poll.queues:
            self._parked.setdefault(queue, {})[poll] = None
            self._ears.want(queue)
        self.parked += 1

    def _answer(self, poll: Poll) -> None:
        self._leave(poll)
        poll.done.set()

    def _leave(self, poll: Poll) -> None:
        """Out of the lists; nothing more is offered to it."""
        poll.parks = False
        was_parked = False
        for queue in poll.queues:
            polls = self._parked.get(queue)
            if polls is not None and polls.pop(poll, poll) is None:
                was_parked = True
                if not polls:
                    del self._parked[queue]
                    self._ears.rest(queue)
        self.parked -= was_parked

    def _quietly(self, settle: Callable[[Sequence[Entry]], None], entries: Sequence[Entry]) -> None:
        """What Redis is told after the fact may fail: the sweep of the claimed lists will find it."""
        try:
            if entries:
                settle(entries)
        except redis.RedisError as error:
            self._mirror.failed(settle.__name__, error)
