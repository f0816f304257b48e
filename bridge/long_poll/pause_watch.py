"""The pause watch of an API process: turns away the polls of paused workers, and remembers who asked for what.

It runs beside the dispatcher, in separate greenlets, so that neither a slow PostgreSQL nor an absent Redis holds up a
claim.
"""

from collections import Counter

import gevent
import redis

from bridge.background import every
from bridge.jobs.claim import Claimant
from bridge.jobs.unserved import WRITE_SECONDS, note_asked
from bridge.long_poll.dispatcher import Dispatcher
from bridge.long_poll.poll import Poll
from bridge.queues import Queue
from bridge.runtime import Runtime
from bridge.workers.pauses import Pause, now_paused, of_worker, refusal
from bridge.workers.registry import Worker, WorkerRegistry

TICK_SECONDS = 1.0  # within which a pause takes effect
AT_ONCE = 500  # workers noted without letting others run
MOST_ASKED = 10_000  # queues that are noted at a time
WRITE_TICKS = 10  # ticks between two writes of who was seen


class PauseWatch:
    """One per API process, beside its dispatcher. `seen` is what all processes know of the workers."""

    def __init__(self, runtime: Runtime, dispatcher: Dispatcher) -> None:
        self._runtime = runtime
        self._dispatcher = dispatcher
        self._pauses: dict[tuple[str, str], list[Pause]] = {}
        self._parked = 0
        settings = runtime.settings
        self.seen = WorkerRegistry(settings.require("redis_url"), settings.redis_prefix, runtime.mirror.process)
        self._ticks = 0
        self._asked: set[Queue] = set()
        every(TICK_SECONDS, "know who is paused", self.refresh)
        every(TICK_SECONDS, "tell who asks", self._tell_now_and_then)
        every(WRITE_SECONDS, "note which queues are asked for", self._note_asked)

    def admit(self, poll: Poll) -> None:
        """Note a poll that comes in, and refuse that of a paused worker. Raises Paused."""
        self._note(poll)
        if (pause := self._pause_of(poll.queues[0].tenant, poll.who)) is not None:
            poll.refuse(refusal(pause))
        elif len(self._asked) < MOST_ASKED:
            self._asked.update(poll.queues)

    def drains(self, tenant: str, who: Worker) -> bool:
        """Return whether this worker is asked to end."""
        pause = self._pause_of(tenant, who)
        return pause is not None and pause.drain

    def refresh(self) -> None:
        """Read who is paused now, and turn away their parked polls. Raises sqlalchemy.exc.SQLAlchemyError."""
        with self._runtime.engine.connect() as connection:
            pauses = now_paused(connection)
        by_worker: dict[tuple[str, str], list[Pause]] = {}
        for pause in pauses:
            by_worker.setdefault((pause.tenant, pause.worker_id), []).append(pause)
        self._pauses = by_worker
        if by_worker:
            for poll in self._dispatcher.waiting():
                if (paused := self._pause_of(poll.queues[0].tenant, poll.who)) is not None:
                    self._dispatcher.turn_away(poll, refusal(paused))

    def _pause_of(self, tenant: str, who: Worker | Claimant) -> Pause | None:
        its = self._pauses.get((tenant, who.worker_id))
        return of_worker(its, who.key_id) if its else None

    def _note(self, poll: Poll) -> None:
        types = [queue.content_type for queue in poll.queues]
        worker = Worker(poll.who.key_id, poll.who.worker_id)
        tenant = poll.queues[0].tenant
        self.seen.note(tenant, worker, types, poll.denied, poll.slots)
        self.seen.note_facts(tenant, worker, poll.facts)

    def _note_asked(self) -> None:
        """Write down which queues are asked for. Raises sqlalchemy.exc.SQLAlchemyError."""
        asked, self._asked = self._asked, set()
        for number, poll in enumerate(self._dispatcher.waiting()):
            if number % AT_ONCE == 0:
                gevent.sleep(0)
            if len(asked) < MOST_ASKED:
                asked.update(poll.queues)
        if asked:
            note_asked(self._runtime, asked)

    def _tell_now_and_then(self) -> None:
        whole = self._ticks % WRITE_TICKS == 0
        self._ticks += 1
        if whole or not self._runtime.mirror.breaker.away:
            self._tell(whole)

    def _tell(self, whole: bool) -> None:
        """Write to Redis how many polls wait, if that has changed, and with `whole` who they are."""
        if not whole and self._dispatcher.parked == self._parked:
            return
        waiting = self._dispatcher.waiting()
        try:
            self._parked = self._dispatcher.parked
            self.seen.write_parked(Counter(poll.queues[0].tenant for poll in waiting))
            if whole:
                for number, poll in enumerate(waiting):
                    if number % AT_ONCE == 0:
                        gevent.sleep(0)
                    self._note(poll)
                self.seen.write()
        except redis.RedisError as error:
            self._runtime.mirror.breaker.failed("tell who was seen", error)
