"""A poll from end to end: who may wait, what is claimed, and what is counted of it. One call for the view."""

from bridge.admission.limits import Limits
from bridge.errors import TooMany
from bridge.jobs.claim import Claimant, Claimed, default_wait
from bridge.long_poll.dispatcher import Dispatcher
from bridge.long_poll.pause_watch import PauseWatch
from bridge.long_poll.poll import Poll
from bridge.runtime import Runtime
from bridge.workers.registry import Worker


class LongPoll:
    """The polls of one API process: its dispatcher, the paused workers, and the limits, coordinated in one place."""

    def __init__(self, runtime: Runtime, reserved: Runtime, limits: Limits) -> None:
        """Take what requests work with, and `reserved`, whose connections no request can take."""
        self._runtime = runtime
        self._limits = limits
        self.dispatcher = Dispatcher(reserved)
        self.pauses = PauseWatch(reserved, self.dispatcher)

    def claim(self, poll: Poll, wait_seconds: float | None) -> list[Claimed]:
        """Claim jobs for a poll, waiting up to `wait_seconds` for the first one (None: what its worker waited before).

        A poll that repeats a claim_id gets what it was given then (`poll.again`), which counts towards no limit. Raises
        bridge.errors.TooMany and Paused where it may not wait, sqlalchemy.exc.SQLAlchemyError where PostgreSQL does not
        answer the first look.
        """
        who, limits = poll.who, self._limits
        self.pauses.admit(poll)
        try:
            poll.max_jobs = min(poll.max_jobs, limits.room(who.key_id, who.tenant))
        except TooMany as refusal:
            poll.refuse(refusal)
        if wait_seconds is None:
            with self._runtime.single.connect() as connection:
                wait_seconds = default_wait(connection, who)
        content_types = [queue.content_type for queue in poll.queues]
        try:
            limits.check_parked(who.key_id, who.tenant, content_types)
        except TooMany as refusal:
            poll.refuse(refusal)
        with limits.parked(who.key_id, who.tenant, content_types if poll.error is None else ()):
            jobs = self.dispatcher.poll(poll, wait_seconds)
        if not poll.again:
            limits.took(who.key_id, who.tenant, len(jobs))
        return jobs

    def refuse_all(self, who: Claimant, denied: list[str]) -> None:
        """Remember that a worker asked for content types of which its key allows none."""
        self.pauses.seen.note(who.tenant, Worker(who.key_id, who.worker_id), [], denied)
