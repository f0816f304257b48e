"""Both servers of a data directory, started and stopped together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bridge.embedded.errors import EmbeddedError
from bridge.embedded.places import DataDirectory, open_data_directory
from bridge.embedded.postgres import PostgresServer
from bridge.embedded.process import Lives
from bridge.embedded.valkey import ValkeyServer


class Servers:
    """The running servers; a context manager that stops them.

    `postgres` and `redis` may be stopped, killed and started again one by one (port and password stay), which is
    what the tests of failures do. Neither survives this process: see bridge.embedded.process.
    """

    def __init__(self, data: DataDirectory, keep: bool) -> None:
        self._data = data
        self._keep = keep
        self._stopped = False
        self.postgres: PostgresServer | None = None
        self.redis: ValkeyServer | None = None
        self._lives: dict[str, Lives] = {}

    @property
    def database_url(self) -> str:
        assert self.postgres is not None, "started without PostgreSQL"
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        assert self.redis is not None, "started without Redis"
        return self.redis.url

    def stopped(self) -> str | None:
        """Return the name of a server that is not running although it should be, for a supervisor."""
        return next((name for name, server in self._servers() if not server.running()), None)

    def revive(self) -> list[str]:
        """Restart servers that have ended by themselves, on their data, for a supervisor; return a sentence for each.

        One that does not last, or cannot start, is tried again after growing pauses, for ever: what needs it waits.
        To be called from the main thread, again and again.
        """
        said = []
        for name, server in self._servers():
            lives = self._lives.setdefault(name, Lives())
            if lives.due is None:
                if server.running():
                    continue
                if (pause := lives.ended()) > 0:
                    said.append(f"{name} ended; it is started again in {pause:.0f} s: read {server.log}")
            if not lives.is_due:
                continue
            lives.begin()
            try:
                server.start()
            except EmbeddedError as problem:
                said.append(str(problem))  # the next look finds it ended
            else:
                said.append(f"{name} ended and was started again on its data: read {server.log}")
        return said

    def _servers(self) -> list[tuple[str, PostgresServer | ValkeyServer]]:
        both = (("postgres", self.postgres), ("valkey", self.redis))
        return [(name, server) for name, server in both if server is not None]

    def stop(self) -> None:
        """Stop both cleanly; remove what is not durable and outside the data directory. Repeatable."""
        if self._stopped:
            return
        self._stopped = True
        if self.redis is not None:
            self.redis.stop()
        if self.postgres is not None:
            self.postgres.stop() if self._keep else self.postgres.discard()
        self._data.release()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    data_dir: Path,
    *,
    postgres: bool = True,
    redis: bool = True,
    durable: bool = True,
    keep: bool | None = None,
    postgres_options: Mapping[str, str] | None = None,
    redis_options: Mapping[str, str] | None = None,
) -> Servers:
    """Start the servers of a data directory, creating it if it is missing; data are kept between runs.

    `durable=False` is for disposable data: no fsync. `keep=False`, the default if not durable, removes the cluster at
    `stop`.
    `postgres_options` and `redis_options` are added to the servers' settings. To be called from the main thread.
    Raises EmbeddedError, whose text is one line for a person.
    """
    data = open_data_directory(Path(data_dir))
    keep = durable if keep is None else keep
    servers = Servers(data, keep)
    try:
        if postgres:
            servers.postgres = PostgresServer(data, durable=durable, keep=keep, options=postgres_options or {})
            servers.postgres.start()
        if redis:
            servers.redis = ValkeyServer(data, durable=durable, options=redis_options or {})
            servers.redis.start()
    except BaseException:
        servers.stop()
        raise
    return servers
