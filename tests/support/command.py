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
from contextlib import contextmanager, suppress
from pathlib import Path

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
        self._seen: list[psutil.Process] = []

    @property
    def text(self) -> str:
        return self.output.read_text()

    def says(self, words: str) -> str:
        """All its text, once these words are in it."""

        def said() -> str:
            text = self.text
            assert words in text or self.process.poll() is None, f"it ended: {text}"
            return text if words in text else ""

        return wait_until(said, f"{words!r} from {self.process.args!r}")

    def family(self) -> list[psutil.Process]:
        """All processes below it, remembered for `left`."""
        self._seen = psutil.Process(self.process.pid).children(recursive=True)
        return self._seen

    def left(self) -> list[psutil.Process]:
        """Those of the last `family()` that still live."""
        return [child for child in self._seen if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    def ends(self, signum: int | None = None) -> int:
        """Its exit status, after this signal."""
        if signum is not None:
            self.process.send_signal(signum)
        return self.process.wait(LATEST)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def starting(cwd: Path, **settings: str) -> Iterator[Callable[..., Started]]:
    """Yield a function that starts a command with these settings and its own; all are killed at the end."""
    started: list[Started] = []

    def start(*arguments: str, **changes: str) -> Started:
        started.append(Started(*arguments, cwd=cwd, **{**settings, **changes}))
        return started[-1]

    yield start
    for one in started:
        one.close()


class Terminal:
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

    def says(self, words: str) -> str:
        """All its text, once these words are in it."""
        return wait_until(lambda: self.text if words in self.text else "", f"{words!r} from {self.process.args!r}")

    def types(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def ends(self) -> int:
        """Its exit status, once it has ended by itself."""
        wait_until(lambda: (self.text, self.process.poll() is not None)[1], f"the end of {self.process.args!r}")
        assert self.text is not None  # what came at last
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
