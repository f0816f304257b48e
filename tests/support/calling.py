"""A core whose jobs call a receiver on loopback."""

from functools import partial
from typing import Any

from sqlalchemy import Row

from bridge.admission import keys
from bridge.caller import Caller
from bridge.jobs.callbacks import allowed
from bridge.jobs.enqueue import enqueue
from bridge.outbox.senders import Senders
from bridge.outgoing.post import post
from bridge.runtime import Runtime
from bridge.webhook_signature import shown
from tests.support.core import Core

LOCAL = {"webhook_allow": "http://127.0.0.1:*", "webhook_networks": "127.0.0.0/8"}


class Calling(Core):
    """A core whose jobs call a receiver in the name of a key."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        with self.engine.begin() as connection:
            self.prefix = keys.prefix_of(keys.create_key(connection, "pipeline", ["submit"]))
            secret = keys.change_webhook_secret(connection, self.prefix)
            row = keys.find_key(connection, self.prefix)
        assert secret is not None
        assert row is not None
        self.secret = shown(secret)
        self.asks = Caller(row.id, "default", frozenset({"submit"}), signs=True)
        self.senders = Senders(runtime, partial(post, allowed(runtime.settings)), jitter=0)

    def calling(self, url: str, tenant: str = "default", **fields: Any) -> str:
        return str(enqueue(self.runtime, tenant, self.fields(callback_url=url, **fields), asks=self.asks).job_id)

    def ended(self, url: str, content: str = "text") -> str:
        job = self.claim(self.calling(url), acknowledge=True)
        assert job is not None
        self.result(job, content=content)
        return str(job.job_id)

    def send(self) -> None:
        """Until nothing is due."""
        self.senders.wake()
        assert self.senders.idle(60)

    def hooks(self, job_id: Any) -> list[Row[Any]]:
        return self.sql("SELECT *, extract(epoch FROM next_at - now()) AS due_in FROM webhooks WHERE job_id = :id"
                        " ORDER BY n", id=str(job_id))  # fmt: skip

    def due(self) -> None:
        self.sql("UPDATE webhooks SET next_at = now() WHERE next_at IS NOT NULL")
