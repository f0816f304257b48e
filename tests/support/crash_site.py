"""A bridge that is led past crash points, and a client of it that repeats what is not answered."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import requests

from bridge import names
from models.job_state import FINAL
from tests.support.client import Client, ok
from tests.support.running import Running
from tests.support.waiting import LATEST, wait_until

PATIENCE = 1.5  # seconds that a client waits for an answer, and repeats its request then
_numbers = itertools.count(1)


def new_name() -> str:
    """Return a key, or a claim_id, that was not used before."""
    return f"n{next(_numbers)}"


class Site:
    """A bridge without beat, whose sweeps are asked for, and one tenant's client."""

    def __init__(self, bridge: Running, client: Client) -> None:
        self.bridge, self.client = bridge, client
        client.session.headers["Connection"] = "close"  # a kept one may lead to a process that is stopped
        self.expected = "completed"
        self._swept: dict[str, float] = {}

    def sweep(self, task: str) -> None:
        """As beat would, four times a second at most."""
        if time.monotonic() - self._swept.get(task, 0.0) < 0.25:
            return
        self._swept[task] = time.monotonic()
        self.bridge.celery.send_task(task, queue=names.QUEUE, ignore_result=True)

    def again(self, request: Callable[..., requests.Response]) -> requests.Response:
        """Repeat a request until it is answered; a temporary refusal is no answer."""

        def answered() -> list[requests.Response]:
            try:
                answer = request(timeout=PATIENCE)
            except requests.RequestException:
                return []
            return [answer] if answer.status_code < 500 else []

        return wait_until(answered, "an answer")[0]

    def create(self, **fields: Any) -> str:
        body = {**self.client.fields(), "source_file_path": self.client.source(b"x" * 200_000), **fields}
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"Idempotency-Key": new_name()}
        return str(ok(self.again(lambda **how: self.client.post("", body, headers=headers, **how)))["job_id"])

    def poll(self, **query: Any) -> list[dict[str, Any]]:
        """One claim, repeated under its claim_id."""
        claim_id = new_name()
        asked = {"lease": 60, "claim_id": claim_id, "wait": 1, **query}
        return list(ok(self.again(lambda **how: self.client.poll(**asked, **how)))["jobs"])

    def claim(self) -> dict[str, Any]:
        return wait_until(self.poll, "a job to be claimed")[0]

    def status(self, job_id: str) -> str:
        return str(ok(self.again(lambda **how: self.client.get(f"{job_id}/status", **how)))["status"])

    def do(self, job: dict[str, Any]) -> None:
        """As a worker does it that gives up where it has lost the job."""
        job_id, token = job["job_id"], job["lease_token"]
        path, headers = job["source_file_url"], {"X-Lease-Token": token}
        steps: list[Callable[..., requests.Response]] = [
            lambda **how: self.client.get(path, headers=headers, **how),
            lambda **how: self.client.post(f"{job_id}/heartbeat", {"lease_token": token, "progress": 0.5}, **how),
            lambda **how: self.client.put(
                f"{job_id}/result", {"success": True, "content": f"of {token}", "lease_token": token}, **how
            ),
        ]
        for step in steps:
            if self.again(step).status_code not in (200, 206):
                return

    def work(self, *job_ids: str) -> None:
        """Until all of these are at their end."""
        end = time.monotonic() + LATEST
        while any(self.status(job_id) not in FINAL for job_id in job_ids):
            assert time.monotonic() < end, f"not at its end: {[self.client.job(job_id) for job_id in job_ids]}"
            self.sweep(names.RELEASE_DUE)
            for job in self.poll():
                self.do(job)

    def handed_over(self, *job_ids: str) -> None:
        """Until their outcomes are with the pipeline's broker."""
        of_these = "job_id = ANY(CAST(:ids AS uuid[])) AND sent_at IS NULL"
        since = time.monotonic()

        def none_left() -> bool:
            if time.monotonic() > since + 2:  # as after 30 s: who took them has died, or stands
                self.bridge.sql(f"UPDATE continuations SET next_at = now() WHERE {of_these}", ids=list(job_ids))
            self.sweep(names.CONTINUE)
            return not self.bridge.sql(f"SELECT 1 FROM continuations WHERE {of_these}", ids=list(job_ids))

        wait_until(none_left, "the outcomes to be handed over")

    def until(self, statement: str, task: str, what: str, **parameters: Any) -> None:
        """Sweep until this is so in PostgreSQL."""
        self.swept(lambda: self.bridge.sql(statement, **parameters)[0][0], task, what)

    def swept(self, look: Callable[[], Any], task: str, what: str) -> None:
        """Sweep until a look finds something."""

        def so() -> Any:
            self.sweep(task)
            return look()

        wait_until(so, what)
