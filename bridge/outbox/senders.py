"""The threads of a process that send webhooks: bounded, and in turns, so that a receiver that hangs delays no other.

They end when nothing is due. A process that is killed loses nothing: what it had in hand is due again after
VISIBILITY_SECONDS.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.exc import NoResultFound

from bridge.background import Supervised
from bridge.crash_points import reach
from bridge.outbox import webhooks
from bridge.outbox.message import message
from bridge.outgoing.connect import NotSent
from bridge.outgoing.destination import BadAddress
from bridge.outgoing.post import Answer
from bridge.runtime import Runtime
from bridge.traces import Passed
from bridge.webhook_signature import envelope, headers

log = structlog.get_logger("bridge.outbox.webhooks")

SLOTS = 32  # sent at the same moment
OF_TENANT = 16
OF_RECEIVER = 4
MOST_REMEMBERED = 1000  # tenants whose turn is remembered
GONE = 410  # the receiver wants no more of this

# Sends (url, body, headers). Raises BadAddress, NotSent.
Post = Callable[[str, bytes, Mapping[str, str]], Answer]


class Senders:
    """Sends what is due, from up to SLOTS threads; `wake` whenever something may be."""

    def __init__(self, runtime: Runtime, post: Post, slots: int = SLOTS, jitter: float = webhooks.JITTER) -> None:
        self._runtime, self._post = runtime, post
        self._slots, self._jitter = slots, jitter
        self._turn = threading.Condition()
        self._running = 0
        self._tenants: Counter[str] = Counter()  # of each, how many are being sent
        self._receivers: Counter[tuple[str, str]] = Counter()
        self._last_tenant = ""
        self._last_receiver: dict[str, str] = {}
        self._supervised = Supervised("send webhooks")

    def wake(self) -> None:
        """Start sending what is due, in another thread, if there is a free slot."""
        with self._turn:
            if self._running >= self._slots:
                return
            self._running += 1
        threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def idle(self, seconds: float) -> bool:
        """Wait up to `seconds` until all threads have ended; return whether they have."""
        with self._turn:
            return self._turn.wait_for(lambda: self._running == 0, seconds)

    def _run(self) -> None:
        try:
            self._supervised(self._send_due)
        finally:
            with self._turn:
                self._running -= 1
                self._turn.notify_all()

    def _send_due(self) -> None:
        while (row := self._take()) is not None:
            self.wake()  # for what else is due
            try:
                self._send(row)
            finally:
                with self._turn:
                    self._tenants[row.tenant] -= 1
                    self._receivers[row.tenant, row.receiver] -= 1
                    self._tenants, self._receivers = +self._tenants, +self._receivers

    def _take(self) -> Row[Any] | None:
        """Take the webhook whose turn it is; return None if nothing is due that may be sent now."""
        with self._turn, self._runtime.engine.begin() as connection:
            full = {tenant for tenant, sent in self._tenants.items() if sent >= min(OF_TENANT, self._slots)}
            for _ in range(self._slots + 1):  # a tenant without a free receiver is one that is being sent to
                tenant = webhooks.next_tenant(connection, self._last_tenant, [*full])
                if tenant is None:
                    return None
                busy = [to for (whose, to), sent in self._receivers.items() if whose == tenant and sent >= OF_RECEIVER]
                last = self._last_receiver.get(tenant, "")
                receiver, last = webhooks.next_receiver(connection, tenant, last, busy)
                if len(self._last_receiver) >= MOST_REMEMBERED:
                    self._last_receiver.clear()
                self._last_receiver[tenant] = last
                params = {"tenant": tenant, "receiver": receiver, "visibility": webhooks.VISIBILITY_SECONDS}
                row = None if receiver is None else connection.execute(webhooks.TAKE, params).one_or_none()
                if row is None:
                    full.add(tenant)  # for this look
                    continue
                self._last_tenant = tenant
                self._tenants[tenant] += 1
                self._receivers[tenant, row.receiver] += 1
                break
            else:
                return None
        reach("webhooks.after_take")
        return row

    def _send(self, row: Row[Any]) -> None:
        with self._runtime.engine.connect() as connection:
            keys = connection.execute(webhooks.SECRETS, {"key_id": row.key_id, "tenant": row.tenant}).one_or_none()
        if keys is None:
            self._note(row, None, "The key that asked for it is revoked.", final=True)
            return
        event_id = f"continue-{row.job_id}-{row.n}"
        try:
            told, parent = message(self._runtime, row.job_id, row.n, webhooks.READ)
        except NoResultFound:
            return  # the job was deleted meanwhile
        body = envelope(event_id, row.tenant, told)
        both = [bytes(key) for key in keys if key is not None]
        answer, why = None, ""
        span = self._runtime.traces.begin("webhook_sent", parent, "producer") if parent else Passed(None)
        trace = {"traceparent": span.traceparent} if span.traceparent else {}
        try:
            answer = self._post(row.url, body, headers(event_id, row.moment, body, both) | trace)
        except (BadAddress, NotSent) as refused:
            why = str(refused)
        span.end(**{"bridge.job_id": str(row.job_id), "http.response.status_code": answer and answer.status})
        reach("webhooks.after_send")
        self._note(row, answer, why, final=answer is not None and answer.status == GONE)

    def _note(self, row: Row[Any], answer: Answer | None, why: str, *, final: bool = False) -> None:
        """Record the result of a try: delivered, or when it is tried again, if at all."""
        status = None if answer is None else answer.status
        told = {"status": status, "excerpt": (answer and answer.excerpt) or None}
        named = {"job_id": row.job_id, "n": row.n, "tries": row.tries}
        if status is not None and 200 <= status < 300:
            with self._runtime.engine.begin() as connection:
                connection.execute(webhooks.DELIVERED, {**named, **told})
            how = "delivered"
        else:
            error = why or f"The receiver answered {status}."
            asked = (answer and answer.retry_after) or 0.0
            later = {"wait": min(asked, webhooks.LONGEST_DELAY_SECONDS), "jitter": self._jitter}
            until = {"final": final, "give_up": self._runtime.settings.webhook_retry_seconds}
            with self._runtime.engine.begin() as connection:
                done = {**named, **told, "error": error, **later, **until}
                how = "given_up" if connection.scalar(webhooks.NOT_DELIVERED, done) else "failed"
            log.warning("webhook_failed", job_id=str(row.job_id), n=row.n, why=error, tries=row.tries, how=how)
        self._runtime.observer.called(how, "none" if status is None else f"{status // 100}xx")
        reach("webhooks.after_mark")
