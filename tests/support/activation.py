"""What systemd does with a socket unit: it keeps the listening socket, and each start of the service inherits it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from bridge.embedded.process import dies_with_parent
from tests.support.command import JOBBRIDGE, environment

# Its own process ID is known only in the process itself; exec keeps it.
INHERIT = """
import os, resource, sys
if files := sys.argv.pop(1):
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, files.split(":"))))
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Activated:
    """`jobbridge api` on a socket that outlives it."""

    def __init__(self, place: Path, **settings: str) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = place / "api.out"
        self._place = place
        self.settings = {"BRIDGE_DATA_DIR": str(place / "data"), "BRIDGE_LOG_FORMAT": "json", **settings}
        (place / "data" / "files").mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def files(self) -> Path:
        return self._place / "data" / "files"

    def start(self, files: str = "") -> None:
        """Start the service; with the limits `soft:hard` of open files."""
        handed = os.dup(self.socket.fileno())
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", INHERIT, files, str(handed), JOBBRIDGE, "api"],
                cwd=self._place,
                env=environment(**self.settings),
                stdout=out,
                stderr=out,
                pass_fds=(handed,),
                start_new_session=True,
                preexec_fn=dies_with_parent(signal.SIGTERM),
            )
        os.close(handed)

    def stop(self, told: signal.Signals = signal.SIGTERM) -> int:
        """Stop the service as systemd does, and wait for its end; its status."""
        assert self.process is not None
        self.process.send_signal(told)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.socket.close()
