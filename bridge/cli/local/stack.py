"""The servers and processes of one bridge on this machine, for `up` and `demo`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import redis
import requests
from sqlalchemy.exc import SQLAlchemyError

from bridge import embedded, names
from bridge.admission import keys
from bridge.cli.local import checkout, command_lines
from bridge.cli.local.database import refuse_unfit
from bridge.cli.local.supervisor import ChildEnded, Family, Signals, wait_until
from bridge.cli.local.used_ports import refuse_used_port
from bridge.db import make_engine
from bridge.mirror.lists import Mirror
from bridge.private_files import private_directory, write_private
from bridge.redis_client import connect
from bridge.settings import Settings

#: In the order in which they are stopped.
PROCESSES = ("api", "celery", "beat", "flower")


class Stack:
    """PostgreSQL and Redis (embedded where no URL is set), the migrated schema, and the family of processes."""

    def __init__(self, changes: dict[str, str], *, throw_away: bool = False, fsync: bool = True) -> None:
        """Start the servers; `changes` are settings that win over the environment. Raises SettingsError, EmbeddedError.

        `throw_away`: nothing is read from the environment, and the data do not outlive the stack. `fsync` off
        makes the embedded servers faster and their data unsafe.
        """
        checkout.check()
        settings, environment = checkout.settings_and_environment(changes, hermetic=throw_away)
        refuse_used_port(settings.host, settings.port, "BRIDGE_PORT", "choose another with --port")
        self.servers: embedded.Servers | None = None
        need_postgres, need_redis = settings.database_url is None, settings.redis_url is None
        if need_postgres or need_redis:
            self.servers = embedded.start(
                settings.data_dir, postgres=need_postgres, redis=need_redis, durable=fsync, keep=not throw_away
            )
            if need_postgres:
                environment["BRIDGE_DATABASE_URL"] = self.servers.database_url
            if need_redis:
                environment["BRIDGE_REDIS_URL"] = self.servers.redis_url
            settings, environment = checkout.settings_and_environment(environment)
        if throw_away:  # so what a killed process leaves in it does not outlive the stack either
            temporary = settings.data_dir / "tmp"
            temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
            environment["TMPDIR"] = str(temporary)
        self.settings: Settings = settings
        self.environment = environment
        self.family = Family(settings.data_dir / "logs")
        for root in settings.source_roots:
            if root == settings.data_dir / "files":
                root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::", "localhost") else self.settings.host
        return f"http://{host}:{self.settings.port}"

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return what is wrong with servers that are not ours, a line each.

        Raises Refused if the bridge cannot work with them.
        """
        from models import migrations  # after checkout.check()

        lines = refuse_unfit(self.settings.database_url, self.settings.redis_url)
        migrations.upgrade(self.settings.require("database_url"))
        return lines

    def make_key(
        self, name: str, scopes: list[str], *, content_types: list[str] | None = None, only_first: bool = False
    ) -> str | None:
        """Make a key and return its text; None if keys are off, or with `only_first` if there is any key already."""
        if not self.settings.auth:
            return None
        engine = make_engine(self.settings)
        try:
            with engine.begin() as connection:
                if only_first and keys.list_keys(connection):
                    return None
                return keys.create_key(connection, name, scopes, content_types=content_types)
        finally:
            engine.dispose()

    def start_remote_worker(self, name: str, handlers: Mapping[str, str], key: str | None) -> None:
        """Start a worker as it would run on another machine: it knows one address and one key, and no other setting."""
        outside = {name: value for name, value in self.environment.items() if not name.startswith("BRIDGE_")}
        arguments = command_lines.remote_worker(self.url, name, handlers)
        self.family.start(name, arguments, {**outside, **({"BRIDGE_KEY": key} if key else {})})

    def start_processes(self, *, api: bool = True, celery: bool = True, beat: bool = True) -> None:
        """Start API, Celery worker and beat, in the order in which they are stopped."""
        environment = command_lines.celery_environment(self.environment)
        if api:
            self.family.start("api", command_lines.api(), self.environment)
        if celery:
            self.family.start("celery", command_lines.celery_worker(["--concurrency=2"]), environment)
        if beat:
            self.family.start("beat", command_lines.beat(self.settings, []), environment)

    def await_api(self, signals: Signals, seconds: float = 60.0) -> bool:
        """Wait until the API answers; return False if a signal came first. Raises ChildEnded."""
        if wait_until(self._api_answers, signals, self.family, seconds):
            return True
        if not signals.seen:
            raise ChildEnded(f"api did not answer within {seconds:.0f} s: read {self.family.children[0].log}")
        return False

    def check(self) -> None:
        """Check that all still run. Raises ChildEnded if a process or an embedded server has ended."""
        self.family.check()
        stopped = self.servers.stopped() if self.servers else None
        if stopped:
            raise ChildEnded(f"{stopped} ended: read {self.settings.data_dir / 'logs' / stopped}.log")

    def keep_up(self) -> list[str]:
        """Restart servers and processes that have ended; return a sentence for each.

        Raises ChildEnded for a process that keeps ending although its servers are well.
        """
        said = self.servers.revive() if self.servers else []
        return said + self.family.revive(self._servers_are_ill)

    def _servers_are_ill(self) -> bool:
        """Return whether PostgreSQL, Redis or the broker is away, or takes no writes."""
        engine = make_engine(self.settings, pool_size=1, name="bridge-up")
        try:
            with engine.connect():
                pass
            for url in {self.settings.require("redis_url"), self.settings.require("broker_url")}:
                Mirror(url, self.settings.redis_prefix, "up").serves()
            with connect(self.settings.require("broker_url"), socket_timeout=2) as broker:
                for queue in names.QUEUES:
                    broker.llen(queue)
        except (SQLAlchemyError, redis.RedisError):
            return True
        finally:
            engine.dispose()
        return False

    def stop(self) -> None:
        """Stop remote workers (they hand in what they have begun), API, Celery and beat, then the servers."""
        self.family.stop(last=PROCESSES)
        if self.servers is not None:
            self.servers.stop()

    def _api_answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False


def kept_worker_key(stack: Stack, place: Path) -> str | None:
    """Return the key of the local worker, made once and kept in a file that only its owner may read."""
    if place.exists():
        return place.read_text().strip()
    key = stack.make_key("local worker", ["work"])
    if key is not None:
        private_directory(place.parent)
        write_private(place, key + "\n")
    return key
