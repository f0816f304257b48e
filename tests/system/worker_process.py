"""The command `bridge-worker` as a process of a test, with handlers that the test wrote."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.running import Running

PASSED_ON = ("PATH", "PYTHONPATH", "REACHED")  # the last two where coverage is measured


class Worker:
    """It runs in `place`, where its handlers are looked for; a context manager."""

    def __init__(self, bridge: Running, key: str, place: Path, name: str, *arguments: str, **environment: str) -> None:
        self.name, self.log = name, place / f"{name}.log"
        command = [str(Path(sys.executable).with_name("bridge-worker")), "--worker-id", name, *arguments]
        told = {one: os.environ[one] for one in PASSED_ON if one in os.environ}
        told |= {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": key, **environment}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=place, env=told, stdout=out, stderr=out)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
