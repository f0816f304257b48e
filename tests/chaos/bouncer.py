"""pgbouncer in transaction mode before PostgreSQL, where Debian's package is installed."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from bridge.embedded.ports import free_port
from bridge.embedded.process import await_ready, spawn, stop

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
CONFIGURATION = """[databases]
{name} = host={host} port={port} dbname={name} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 40
max_client_conn = 1000
ignore_startup_parameters = options,extra_float_digits
"""


class Bouncer:
    """One pgbouncer; `url` is that of the database through it."""

    def __init__(self, database_url: str) -> None:
        assert PROGRAM is not None
        parts = urlsplit(database_url)
        listen = free_port()
        self.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{listen}").geturl()
        self._place = Path(tempfile.mkdtemp(prefix="jobbridge-pgbouncer-"))
        configuration, log = self._place / "pgbouncer.ini", self._place / "pgbouncer.log"
        configuration.write_text(CONFIGURATION.format(
            name=parts.path.lstrip("/"), host=parts.hostname, port=parts.port, user=parts.username,
            password=parts.password, listen=listen,
        ))  # fmt: skip
        user = None
        if os.getuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            user = nobody.pw_uid, nobody.pw_gid
            for path in (self._place, configuration):
                os.chown(path, *user)
        self._child: subprocess.Popen[bytes] = spawn(
            [PROGRAM, configuration], death=signal.SIGTERM, log=log, cwd=Path("/"),
            environment={"PATH": "/usr/bin:/bin"}, user=user,
        )  # fmt: skip
        await_ready(self._child, lambda: b"process up" in log.read_bytes(), what="pgbouncer", log=log)

    def stop(self) -> None:
        stop(self._child, signal.SIGTERM)
        shutil.rmtree(self._place, ignore_errors=True)
