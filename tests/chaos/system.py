"""A whole bridge with proxies between its parts, and everything that can be done to its processes and servers."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import redis
from sqlalchemy import text

from bridge import embedded
from bridge.admission import keys
from bridge.cli.local import command_lines
from bridge.cli.local.checkout import ROOT
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import Child, end_tree
from bridge.db import SESSION, make_engine
from bridge.embedded.ports import free_port
from tests.chaos.bouncer import Bouncer
from tests.support.fault_proxy import FaultProxy

TENANTS = ("alpha", "beta", "gamma")
CONTENT_TYPES = tuple(f"type-{n:02}" for n in range(24))
PROCESS_TENANT = "delta"  # its jobs are done by bridge-worker, a process
ACK_SECONDS = 2
SETTINGS = {
    "BRIDGE_API_PROCESSES": "2",
    "BRIDGE_ACK_SECONDS": str(ACK_SECONDS),
    "BRIDGE_RETRY_BACKOFF": "base=0.5,factor=1.5,max=3,jitter=0.1",
    "BRIDGE_CONTINUATION_TASK": "sample_pipeline.receive",
    "BRIDGE_CONTINUATION_QUEUE": "pipeline",
    "BRIDGE_CONTINUATION_CONFIRM_SECONDS": "10",
    "BRIDGE_LOG_FORMAT": "json",
}
#: The processes that are always there; "beat-2" comes and goes.
PROCESSES = ("api", "celery", "beat", "pipeline", "worker-1", "worker-2")


class System:
    """PostgreSQL, Redis, proxies before both, the bridge's processes, a pipeline and two reference workers.

    Processes and servers are started from the main thread only (bridge.embedded.process).
    """

    def __init__(
        self, place: Path, *, wsgi: str = "api.wsgi:app", bouncer: bool = False,
        postgres_options: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._wsgi = wsgi
        self.servers = embedded.start(place / "servers", durable=True, keep=False, postgres_options=postgres_options)
        assert self.servers.postgres is not None
        assert self.servers.redis is not None
        self.postgres, self.redis_server = self.servers.postgres, self.servers.redis
        database, mirror = self.servers.database_url, self.servers.redis_url
        self.bouncer = Bouncer(database) if bouncer else None
        behind = self.bouncer.url if self.bouncer is not None else database
        self.api_postgres, self.celery_postgres = FaultProxy.before(behind), FaultProxy.before(behind)
        self.api_redis, self.celery_redis = FaultProxy.before(mirror), FaultProxy.before(mirror)
        self.proxies = (self.api_postgres, self.celery_postgres, self.api_redis, self.celery_redis)
        bootstrap = f"jb_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        port = str(free_port())
        self.stack = Stack(
            {
                **SETTINGS,
                "BRIDGE_BOOTSTRAP_KEY": bootstrap,
                "BRIDGE_DATABASE_URL": database,
                "BRIDGE_REDIS_URL": mirror,
                "BRIDGE_DATA_DIR": str(place / "bridge"),
                "BRIDGE_PORT": port,
            },
            throw_away=True,
        )
        self.stack.migrate()
        if bouncer:  # which passes no options on: docs/operations.md, PostgreSQL and Redis
            self._limit_role()
        self.engine = make_engine(self.stack.settings)
        self.files = self.stack.settings.source_roots[0]
        self.receipts, self.slow = place / "receipts.sqlite3", place / "slow"
        self.url, self.bootstrap = self.stack.url, bootstrap
        self.keys = {(tenant, scope): self._key(tenant, [scope]) for tenant in (*TENANTS, PROCESS_TENANT)
                     for scope in ("work", "admin")}  # fmt: skip
        # A key that is limited to half of the content types.
        self.keys["alpha", "half"] = self._key("alpha", ["work"], list(CONTENT_TYPES[::2]))
        self.running: dict[str, Child] = {}
        self.ended: list[str] = []  # processes that ended by themselves
        for name in PROCESSES:
            self.start(name)

    def _key(self, tenant: str, scopes: list[str], content_types: list[str] | None = None) -> str:
        with self.engine.begin() as connection:
            return keys.create_key(connection, "chaos", scopes, tenant, content_types)

    def _limit_role(self) -> None:
        """Set on the role the limits that the bridge asks for at each connection."""
        engine = make_engine(self.stack.settings)
        with engine.begin() as connection:
            for one in SESSION.split("-c ")[1:]:
                name, _, value = one.strip().partition("=")
                connection.execute(text(f"ALTER ROLE CURRENT_USER SET {name} = '{value}'"))
        engine.dispose()

    # Processes.

    def start(self, name: str) -> None:
        """Start a process; what runs under this name must have ended."""
        if (child := self.running.get(name)) is not None and child in self.stack.family.children:
            self.stack.family.children.remove(child)
        environment = command_lines.celery_environment(self.stack.environment)
        outside = {key: value for key, value in environment.items() if not key.startswith("BRIDGE_")}
        outside["PYTHONPATH"] = str(ROOT)
        cwd = ROOT
        if name == "api":
            arguments = [*command_lines.api()[:-1], self._wsgi]
            environment |= self._addresses(self.api_postgres, self.api_redis)
        elif name == "celery":
            arguments = command_lines.celery_worker(["--concurrency=2"])
            environment |= self._addresses(self.celery_postgres, self.celery_redis)
        elif name.startswith("beat"):
            arguments = command_lines.beat(self.stack.settings, ["-s", str(self.stack.settings.data_dir / name)])
            environment |= self._addresses(self.celery_postgres, self.celery_redis)
        elif name == "pipeline":
            environment = {**outside, "PIPELINE_BROKER_URL": self.servers.redis_url,
                           "PIPELINE_STATE": str(self.receipts), "PIPELINE_SLOW": str(self.slow)}  # fmt: skip
            arguments = [
                sys.executable, "-m", "celery", "-A", "tests.chaos.pipeline", "worker", "-Q", "pipeline",
                "-n", "pipeline@%h", "--concurrency=1", "--without-gossip", "--without-mingle",
            ]  # fmt: skip
            cwd = ROOT / "examples" / "pipeline"
        else:
            environment = {**outside, "BRIDGE_KEY": self.keys[PROCESS_TENANT, "work"]}
            arguments = [
                sys.executable, "-m", "bridge_worker", "--url", self.url, "--worker-id", name, "--lease", "10",
                "--content-types", ",".join(CONTENT_TYPES), "--handler", "tests.chaos.handler:handle", "--wait", "20",
            ]  # fmt: skip
        self.running[name] = self.stack.family.start(name, arguments, environment, cwd=cwd)

    def _addresses(self, postgres: FaultProxy, mirror: FaultProxy) -> dict[str, str]:
        return {"BRIDGE_DATABASE_URL": postgres.url(self.servers.database_url),
                "BRIDGE_REDIS_URL": mirror.url(self.servers.redis_url)}  # fmt: skip

    def process(self, name: str) -> "subprocess.Popen[bytes]":
        return self.running[name].process

    def alive(self, name: str) -> bool:
        return name in self.running and self.process(name).poll() is None

    def kill(self, name: str) -> None:
        """SIGKILL to a process and all that it has started."""
        end_tree(self.process(name), 0)

    def kill_alone(self, name: str) -> None:
        """SIGKILL to a process; its children are orphans for a while, or for ever."""
        with suppress(ProcessLookupError):
            os.kill(self.process(name).pid, signal.SIGKILL)
        self.process(name).wait()

    def children(self, name: str) -> list[psutil.Process]:
        """Return the processes that a master has forked."""
        try:
            forked: list[psutil.Process] = psutil.Process(self.process(name).pid).children()
            return forked
        except psutil.NoSuchProcess:
            return []

    def revive(self, held: set[str]) -> list[str]:
        """Start what ended by itself, as a supervisor would; those in `held` are in the hands of a fault."""
        said = []
        for name in PROCESSES:
            if name not in held and not self.alive(name):
                said.append(f"{name} ended by itself, status {self.process(name).poll()}")
                self.ended.append(name)
                end_tree(self.process(name), 0)
                self.start(name)
        return said

    # Servers.

    def sql(self, statement: str, **parameters: object) -> list[object]:
        """Beside the service, past the proxies; waits for PostgreSQL where it has just been started."""
        last: Exception | None = None
        for _ in range(40):
            try:
                with self.engine.begin() as connection:
                    done = connection.execute(text(statement), parameters)
                    return list(done) if done.returns_rows else []
            except Exception as error:
                last = error
                self.engine.dispose()
                time.sleep(0.1)
        raise AssertionError(f"PostgreSQL did not come back: {last}")

    def number(self, statement: str) -> int:
        """Return the one number that a statement gives."""
        return int(self.sql(statement)[0][0])  # type: ignore[index]

    def redis(self) -> "redis.Redis":
        """Return a client of the real Redis, past the proxies."""
        return redis.Redis.from_url(self.servers.redis_url, decode_responses=True, socket_timeout=5)

    def heal(self) -> None:
        """Everything runs, answers and passes again; called from the main thread when no fault is under way."""
        for proxy in self.proxies:
            proxy.heal()
        self.slow.unlink(missing_ok=True)
        for server in (self.postgres, self.redis_server):
            if not server.running():
                server.start()
        self.revive(set())

    def stop(self) -> None:
        self.engine.dispose()
        self.stack.stop()
        for proxy in self.proxies:
            proxy.close()
        if self.bouncer is not None:
            self.bouncer.stop()
        self.servers.stop()
