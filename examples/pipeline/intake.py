"""Creates jobs so that none is lost: it asks again, under the same idempotency key, until the bridge has answered.

A Celery worker that is killed can lose a message that it has taken off Redis and not yet recorded; so can a Redis that
is emptied or fails over, and the answer can be lost in the same ways. No setting on either side prevents that. So each
wanted job is written down first, with its key, and deleted when the bridge has answered: however often it is asked
for, a key becomes one job. This module is meant to be copied; `wishes` becomes a table of your own database.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from celery.exceptions import TimeoutError as NoAnswer
from celery.result import AsyncResult
from kombu.exceptions import KombuError
from pipeline_app import BRIDGE_QUEUE, ENQUEUE, app, state

FIRST_WAIT = 30.0  # seconds to wait for an answer before asking again; each further wait is twice as long, up to
LONGEST_WAIT = 600.0  # this, so that a bridge that was away for long finds few messages per job
MOST_ASKED = 500  # jobs asked for at a time; the others wait here, not in the broker
AWAY = (KombuError, redis.RedisError, RuntimeError, OSError)  # Celery says RuntimeError when results cannot be read

SCHEMA = "CREATE TABLE IF NOT EXISTS wishes (key TEXT PRIMARY KEY, fields TEXT NOT NULL)"


class Answer(NamedTuple):
    """What the bridge said: `job` is `{"job_id", "status", "created_at"}`; or None, and `refused` says why."""

    fields: dict[str, Any]
    job: dict[str, Any] | None
    refused: str | None


def want(key: str, fields: dict[str, Any]) -> None:
    """Record that a job is wanted. From here on it is asked for, also by the next process if this one dies."""
    with state() as connection:
        connection.execute(SCHEMA)
        connection.execute("INSERT OR IGNORE INTO wishes VALUES (?, ?)", (key, json.dumps(fields)))


def answers(first_wait: float = FIRST_WAIT) -> Iterator[Answer]:
    """Ask for all wanted jobs, in order, until each is answered; yield the answers as they come.

    One process at a time is enough; two do no harm. Ends when no wanted job is left.
    """
    while wanted := _wanted():
        asked = [_Asked(key, fields, first_wait) for key, fields in wanted]
        while asked:
            for one in list(asked):
                if answer := one.answer():
                    asked.remove(one)
                    yield answer
                    # Deleted after the caller has taken the answer: getting it twice is harmless.
                    with state() as connection:
                        connection.execute("DELETE FROM wishes WHERE key = ?", (one.key,))


def _wanted() -> list[tuple[str, dict[str, Any]]]:
    with state() as connection:
        connection.execute(SCHEMA)
        rows = connection.execute("SELECT key, fields FROM wishes ORDER BY rowid LIMIT ?", (MOST_ASKED,)).fetchall()
    return [(key, json.loads(fields)) for key, fields in rows]


class _Asked:
    """A job that was asked for, without an answer yet."""

    def __init__(self, key: str, fields: dict[str, Any], wait: float) -> None:
        self.key, self.fields, self.wait = key, fields, wait
        self._ask()

    def _ask(self) -> None:
        self.until = time.monotonic() + self.wait
        self.sent: AsyncResult | None = None
        asked = {**self.fields, "idempotency_key": self.key}
        with contextlib.suppress(*AWAY):  # Not sent is like lost: it is asked for again.
            self.sent = app.send_task(ENQUEUE, kwargs=asked, queue=BRIDGE_QUEUE, retry=False)

    def answer(self) -> Answer | None:
        """Return the bridge's answer, or None if none came in time; then the job has been asked for again."""
        left = max(0.0, self.until - time.monotonic())
        try:
            if self.sent is None:
                time.sleep(left)
            else:
                said = self.sent.get(timeout=left, propagate=False)
                if self.sent.successful():
                    return Answer(self.fields, said, None)
                if type(said).__name__ == "Refused":  # decided: the same fields will be refused again
                    return Answer(self.fields, None, str(said))
                time.sleep(max(0.0, self.until - time.monotonic()))  # it failed otherwise: nothing was decided
        except (NoAnswer, *AWAY):
            pass
        if self.sent is not None:
            with contextlib.suppress(*AWAY):
                app.backend.remove_pending_result(self.sent)
        if time.monotonic() >= self.until:
            self.wait = min(self.wait * 2, LONGEST_WAIT)
            self._ask()
        return None
