"""Producers that create jobs over Celery: the message is sent again under the same key until its answer is there."""

import json
import random
import time
import uuid
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from bridge import names
from tests.chaos.clients import Phase
from tests.chaos.history import History, Outcome
from tests.chaos.system import CONTENT_TYPES, TENANTS, System

ANSWER_SECONDS = 5.0  # until the message is sent again
GIVE_UP_SECONDS = 150.0  # after the faults have ended


class Intake:
    """One such producer."""

    def __init__(self, system: System, history: History, phase: Phase, n: int, seed: str) -> None:
        self._history, self._phase, self._who = history, phase, f"intake-{n}-{seed}"
        self._random = random.Random(self._who)
        broker = system.servers.redis_url
        self._app = Celery("a pipeline", broker=broker, set_as_current=False)
        self._app.conf.update(
            task_create_missing_queues=True,
            broker_transport_options={"socket_timeout": 5, "max_retries": 1, "interval_start": 0, "interval_max": 0.1},
        )
        self._redis = system.redis()
        path = system.files / self._who
        path.write_bytes(b"source over Celery")
        self._path = str(path)

    def run(self) -> None:
        count = 0
        while self._phase.creating.is_set():
            count += 1
            tenant, key = self._random.choice(TENANTS), f"{self._who}-{count}"
            fields = {
                "source_file_path": self._path, "content_type": self._random.choice(CONTENT_TYPES), "max_retries": 50,
                "ingestion_task_id": key, "idempotency_key": key, "tenant": tenant,
            }  # fmt: skip
            last: float | None = None
            while not self._ask(tenant, key, fields):
                if not self._phase.creating.is_set():
                    last = last or time.monotonic() + GIVE_UP_SECONDS
                    if time.monotonic() > last or not self._phase.working.is_set():
                        break
            time.sleep(0.1 + 0.2 * self._random.random())
            self._phase.wait_for_room()

    def _ask(self, tenant: str, key: str, fields: dict[str, Any]) -> bool:
        """Send it once; whether its answer came."""
        call = self._history.begin(self._who, "send", tenant, key=key)
        task_id = str(uuid.uuid4())
        try:
            self._app.send_task(names.ENQUEUE, kwargs=fields, task_id=task_id, queue=names.QUEUE, retry=False)
        except (OperationalError, redis.RedisError) as error:
            call.detail = type(error).__name__
            time.sleep(0.5)
            return False
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            answer = self._answer(task_id)
            if answer is not None and answer["status"] == "SUCCESS":
                call.ended, call.outcome = time.monotonic(), Outcome.OK
                call.job_ids = (answer["result"]["job_id"],)
                return True
            if answer is not None and answer["status"] == "FAILURE":
                # Only `Refused` says that the bridge will not have it; any other failure may be the result backend's.
                refused = answer["result"].get("exc_type") == "Refused"
                call.ended, call.outcome = time.monotonic(), Outcome.REFUSED if refused else Outcome.UNKNOWN
                call.detail = str(answer["result"])[:200]
                return False
            time.sleep(0.05)
        return False

    def _answer(self, task_id: str) -> dict[str, Any] | None:
        """Return what the result backend has of this task."""
        try:
            raw = self._redis.get(f"celery-task-meta-{task_id}")
        except redis.RedisError:
            return None
        return None if raw is None else dict(json.loads(str(raw)))
