"""The command `jobbridge`, as a newcomer starts it: a process, its text, its exit status."""

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bridge.embedded.process import dies_with_parent
from tests.support.waiting import LATEST, wait_until

JOBBRIDGE = str(Path(sys.executable).with_name("jobbridge"))


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without any setting of the bridge or of Flower."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "FLOWER_"))}
    return {**around, **changes}


def jobbridge(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [JOBBRIDGE, *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LATEST,
        check=False,
    )


def refusal(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """Return the one line with which a command refused."""
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert done.stderr.startswith("jobbridge: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


class Started:
    """A command that goes on until it is told to stop."""

    _seen: list[psutil.Process] = []

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
                preexec_fn=dies_with_parent(signal.SIGTERM),  # as when a run of the tests is interrupted
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def says(self, words: str) -> str:
        """All its text, once these words are in it."""

        def said() -> str:
            ended, text = self.process.poll() is not None, self.text
            assert words in text or not ended, f"it ended: {text}"
            return text if words in text else ""

        return wait_until(said, f"{words!r} from {self.process.args!r}")

    def family(self) -> list[psutil.Process]:
        """All processes below it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def left(self) -> list[psutil.Process]:
        """Those that were below it at its last signal and still live."""
        return [child for child in self._seen if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    def ends(self, signum: int | None = None) -> int:
        """Its exit status, after this signal."""
        if signum is not None:
            self._seen = self.family()
            self.process.send_signal(signum)
        wait_until(self._ended, f"the end of {self.process.args!r}")
        return self.process.wait()

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Terminal(Started):
    """A command in a terminal of its own, this wide, as a person has it; Ctrl-C typed there is the signal."""

    def __init__(self, *arguments: str, cwd: Path, width: int = 80, **settings: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        os.set_blocking(self._ours, False)
        around = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        dying = dies_with_parent(signal.SIGTERM)

        def prepare() -> None:
            dying()
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background of a script
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [JOBBRIDGE, *arguments],
            cwd=cwd,
            env={**around, "TERM": "xterm-256color", **settings},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=prepare,
        )
        os.close(theirs)
        self.raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def text(self) -> str:
        """All that came so far, without what moves the cursor and gives colour."""
        with suppress(BlockingIOError, OSError):  # nothing yet; or nobody holds the other end any more
            while part := os.read(self._ours, 65536):
                self.raw += self._decoder.decode(part)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw).replace("\r\n", "\n")

    def types(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def _ended(self) -> bool:
        """Read meanwhile what it says: it waits for that."""
        return (super()._ended(), self.text)[0]

    def close(self) -> None:
        super().close()
        os.close(self._ours)


@contextmanager
def starting(cwd: Path, kind: type[Started] = Started, /, **settings: str) -> Iterator[Callable[..., Any]]:
    """Yield a function that starts a command with these settings and its own; all are killed at the end."""
    with ExitStack() as started:

        def start(*arguments: str, **changes: Any) -> Started:
            return started.enter_context(closing(kind(*arguments, cwd=cwd, **{**settings, **changes})))

        yield start
