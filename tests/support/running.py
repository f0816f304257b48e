"""A whole bridge for tests, asked over HTTP and Celery."""

import itertools
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import text

from bridge import embedded
from bridge.admission import keys
from bridge.cli.local import command_lines
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import ending_signals
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from tests.support.client import Client
from tests.support.forking import ForkingFamily

numbers = itertools.count(1)  # of databases and bridges
QUICK = {"api.wsgi:app": "tests.support.quick_api:app", "tasks.app": "tests.support.quick_beat"}


class Running:
    """A running bridge: its address, its settings, its database, and keys for it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = stack.url
        self.settings = stack.settings
        self.files = stack.settings.source_roots[0]
        self.engine = make_engine(stack.settings)

    def key(self, tenant: str = "default", scopes: tuple[str, ...] = ("admin",), **options: Any) -> str:
        with self.engine.begin() as connection:
            return keys.create_key(connection, "test", scopes, tenant, **options)

    def client(self, tenant: str | None = None, scopes: tuple[str, ...] = ("admin",), **options: Any) -> Client:
        """Return a client with its own key, of a new tenant unless one is named."""
        tenant = tenant or f"t-{uuid.uuid4().hex[:12]}"
        return Client(self.url, self.key(tenant, scopes, **options), self.files, tenant)

    @cached_property
    def celery(self) -> Celery:
        """A pipeline's Celery application on the bridge's broker; it knows nothing of the bridge but task names."""
        broker = self.settings.require("broker_url")
        app = Celery("a pipeline", broker=broker, backend=broker, set_as_current=False)
        app.conf.update(task_ignore_result=False, task_create_missing_queues=True)
        return app

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        """Run SQL beside the service, to do what time and accidents would: `sql("UPDATE …", id=…)`."""
        with self.engine.begin() as connection:
            done = connection.execute(text(statement), parameters)
            return list(done) if done.returns_rows else []

    def stop(self) -> None:
        """End it, its processes at the same time: it leaves nothing that somebody needs."""
        self.engine.dispose()
        end = time.monotonic() + 10
        children = [child.process for child in self.stack.family.children]
        for process in children:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in children:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, end - time.monotonic()))
            process.kill()
        self.stack.stop()


def _quick(arguments: list[str]) -> list[str]:
    return [QUICK.get(part, part) for part in arguments]


@contextmanager
def bridges(
    servers: embedded.Servers, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    """Yield what starts bridges, each on a database of its own; they are stopped at the end."""
    running: list[Running] = []

    def start(*, beat: bool = True, celery: bool = True, **changes: str) -> Running:
        number = next(numbers)
        settings = {
            "BRIDGE_DATABASE_URL": new_database(),
            "BRIDGE_REDIS_URL": servers.redis_url.rpartition("/")[0] + f"/{number}",
            "BRIDGE_DATA_DIR": str(tmp_path_factory.mktemp(f"bridge-{number}")),
            "BRIDGE_PORT": str(free_port()),
            "BRIDGE_API_PROCESSES": "1",  # each costs a second of imports
            "BRIDGE_REDIS_PREFIX": f"bridge{number}",
            "BRIDGE_LOG_FORMAT": "json",
            "BRIDGE_FAST_ROUTES": os.environ.get("BRIDGE_FAST_ROUTES", "on"),  # `make flask`
            **{f"BRIDGE_{name.upper()}": value for name, value in changes.items()},
        }
        stack = Stack(settings, throw_away=True)
        stack.family = ForkingFamily(stack.settings.data_dir / "logs")
        bridge = Running(stack)
        running.append(bridge)
        stack.family.start("api", _quick(command_lines.api()), stack.environment)
        stack.start_processes(api=False, celery=celery, beat=False)
        if beat:
            environment = command_lines.celery_environment(stack.environment)
            stack.family.start("beat", _quick(command_lines.beat(stack.settings, [])), environment)
        with ending_signals() as signals:
            assert stack.await_api(signals), "interrupted"
        return bridge

    try:
        yield start
    finally:
        for bridge in running:
            bridge.stop()
