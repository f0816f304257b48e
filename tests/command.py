"""The command `jobbridge`, as a newcomer starts it: a process, its text, its exit status."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.waiting import wait_until

JOBBRIDGE = str(Path(sys.executable).with_name("jobbridge"))


def environment(**changes: str) -> dict[str, str]:
    """This process' environment without any setting of the bridge or of Flower."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "FLOWER_"))}
    return {**around, **changes}


def jobbridge(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [JOBBRIDGE, *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def refusal(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line with which a command refused."""
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert done.stderr.startswith("jobbridge: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


class Started:
    """A command that goes on until it is told to stop."""

    def __init__(self, *arguments: str, cwd: Path, **settings: str) -> None:
        self.output = cwd / f"{arguments[0]}.out"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [JOBBRIDGE, *arguments],
                cwd=cwd,
                env=environment(**settings),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._seen: list[psutil.Process] = []

    @property
    def text(self) -> str:
        return self.output.read_text()

    def says(self, words: str, seconds: float = 60) -> str:
        """All its text, once these words are in it."""

        def said() -> str:
            text = self.text
            assert words in text or self.process.poll() is None, f"it ended: {text}"
            return text if words in text else ""

        return wait_until(said, f"{words!r} from {self.process.args}", seconds)

    def family(self) -> list[psutil.Process]:
        """All processes below it, remembered for `left`."""
        self._seen = psutil.Process(self.process.pid).children(recursive=True)
        return self._seen

    def left(self) -> list[psutil.Process]:
        """Those of the last `family()` that still live."""
        return [child for child in self._seen if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    def ends(self, signum: int | None = None, seconds: float = 60) -> int:
        """Its exit status, after this signal."""
        if signum is not None:
            self.process.send_signal(signum)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
