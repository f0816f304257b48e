"""Handlers for the tests, in processes of their own; they speak with a test by files in `job.options["dir"]`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bridge_worker import Job, JobCancelled, PermanentError, Result
from bridge_worker.keeping import CHECKPOINT_FILE

LATE = 60  # seconds after which a handler that waits for its test gives up


def _place(job: Job) -> Path:
    return Path(job.options["dir"])


def text(job: Job, path: Path) -> Result:
    return Result("text", {"bytes": path.stat().st_size})


def with_artifact(job: Job, path: Path) -> Result:
    return Result("text", artifacts={"a.txt": b"bytes"})


def noisy(job: Job, path: Path) -> Result:
    """Write what is no message to the line to the worker, and many lines to standard error."""
    for fd in range(3, 10):
        with contextlib.suppress(OSError):
            os.write(fd, b"no JSON\n[]\n")
    print("\n" + "line\n" * 150, file=sys.stderr)
    return Result("text")


def show(job: Job, path: Path) -> Result:
    """Return what the handler was given."""
    seen = {name: getattr(job, name) for name in ("task_options", "attempt", "source_name", "source_size")}
    return Result(str(path), {**seen, "media": job.source_media_type, "pid": os.getpid(), "env": dict(os.environ)})


def held(job: Job, path: Path) -> Result:
    """Finish when the test says `go`, or fall silent when it is cancelled."""
    (_place(job) / f"begun-{job.id}-{job.attempt}").touch()
    job.progress(0.5, "half")
    until = time.monotonic() + LATE
    while not (_place(job) / "go").exists():
        if job.is_cancelled:
            (_place(job) / f"heard-{job.id}").write_text(job.cancel_reason)
            return Result("must not be sent")
        assert time.monotonic() < until
        time.sleep(0.01)
    return Result(f"{job.id} {job.attempt}")


def keeps(job: Job, path: Path) -> Result:
    """Keep a log and a checkpoint, and fail with what an earlier attempt kept."""
    for number in range(50):
        job.log(f"line {number}\x1b[31m\n")
    job.save_checkpoint("first")
    job.save_checkpoint("ü" * 2**19)
    kind = PermanentError if job.task_options.get("bad") else RuntimeError
    raise kind(f"{job.checkpoint}, {job.checkpoint_path}")


def keeps_a_file(job: Job, path: Path) -> Result:
    """Keep what the source file has, and fail with what is in the earlier checkpoint."""
    job.save_checkpoint("replaced")
    job.save_checkpoint(b"replaced too")
    job.save_checkpoint(path)
    raise RuntimeError(f"{job.checkpoint}, {job.checkpoint_path and job.checkpoint_path.read_text()}")


def has_no_room(job: Job, path: Path) -> Result:
    """Save a checkpoint that cannot be written, and finish."""
    (path.parent / f"{CHECKPOINT_FILE}.new").mkdir()
    job.save_checkpoint("never sent")
    return Result("good")


def crashes_on_order(job: Job, path: Path) -> Result:
    """Note the earlier checkpoint, and crash where the file says so."""
    with (_place(job) / "noted").open("a") as file:
        file.write(job.checkpoint_path.read_text() if job.checkpoint_path else "none ")
    if path.read_text() == "abort":
        os.abort()
    return Result("good")


def together(job: Job, path: Path) -> Result:
    """Finish only when two run at once."""
    (_place(job) / f"here-{job.id}").touch()
    until = time.monotonic() + LATE
    while len(list(_place(job).glob("here-*"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    return Result(job.id)


def deaf(job: Job, path: Path) -> Result:
    """Hear of nothing."""
    (_place(job) / f"begun-{job.id}-{job.attempt}").touch()
    while True:
        time.sleep(0.05)


def by_file(job: Job, path: Path) -> Result:
    """Return what the file says: one handler for good and bad ones."""
    order = path.read_text().strip()
    if order == "abort":
        print("about to abort", file=sys.stderr)
        os.abort()
    if order == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if order == "exit":
        os._exit(3)
    if order == "hang":
        while True:
            time.sleep(1)
    if order == "closes":  # what is not its own, as what makes itself a daemon does
        os.closerange(3, 256)
        time.sleep(600)
    if order == "spin":
        while True:
            pass
    if order == "memory":
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 20) * 8))
    if order == "descriptors":
        kept = []
        while True:
            kept.append(path.open())
    if order == "fork":
        for _ in range(3):
            if os.fork() == 0:
                while True:
                    time.sleep(1)
        os._exit(1)
    if order == "daemon":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        return Result("left something behind")
    if order.startswith("orphan"):  # what it leaves has its environment, or none
        kept = None if order == "orphan" else {}
        left = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, env=kept
        )
        (_place(job) / "orphan").write_text(str(left.pid))
        os.abort()
    if order.startswith("left "):  # in the place of its result and its checkpoint
        _leave_instead(order.removeprefix("left "))
        job.save_checkpoint("kept")
        return Result("never read")
    if order == "copy":
        os.fork()
        return Result("twice")
    if order == "swarm":
        for _ in range(400):
            if os.fork() == 0:
                time.sleep(600)
        time.sleep(600)
    return Result(f"good {order}", {"pid": os.getpid()})


def _leave_instead(what: str) -> None:
    """Do what a library that obeys a hostile file could do after the handler."""

    def replace(self: Path, target: Path) -> Path:
        if target.name not in ("result.json", "checkpoint"):
            return Path.rename(self, target)
        if what == "pipe":
            os.mkfifo(target)
        elif what == "link":
            target.symlink_to("/etc/passwd")
        elif what == "directory":
            target.mkdir()
        elif what != "nothing":
            target.write_text({"no JSON": "{", "a list": "[]", "depth": "[" * 100_000}[what])
        return target

    Path.replace = replace  # type: ignore[method-assign]


WRONG = {
    "ValueError": ValueError("two\nlines\x00"),
    "KeyError": KeyError(),
    "SystemExit": SystemExit(3),
    "PermanentError": PermanentError("no such format"),
    "metadata": Result("text", {"x": float("nan")}),
    "bytes": Result("text", {"x": b"bytes"}),
    "unstorable": Result("a\x00b\ud800c", {"x\x00": ["\udfff"]}),
    "none": "text",
}


def raises(job: Job, path: Path) -> object:
    """Raise or return what `task_options` name."""
    kind = job.task_options["error"]
    if kind == "RecursionError":
        return raises(job, path)
    what = Result("text", {"x": "x" * (65 << 20)}) if kind == "large" else WRONG[kind]
    if isinstance(what, BaseException):
        raise what
    return what


async def in_async(job: Job, path: Path) -> Result:
    """Like `held`; a cancel is a CancelledError."""
    (_place(job) / f"begun-{job.id}-{job.attempt}").touch()
    try:
        while not (_place(job) / "go").exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        (_place(job) / f"heard-{job.id}").touch()
        raise
    return Result("async")


def steps(job: Job, path: Path):
    """Report progress by yielding; a cancel is raised at the yield."""
    (_place(job) / f"begun-{job.id}-{job.attempt}").touch()
    try:
        yield 0.25
        while not (_place(job) / "go").exists():
            time.sleep(0.01)
            yield 0.5, "half"
    except JobCancelled:
        (_place(job) / f"heard-{job.id}").touch()
        raise
    return Result("steps")


async def async_steps(job: Job, path: Path):
    yield 0.5
    yield Result("async steps")


class Model:
    """Loads once, closes once."""

    def setup(self, options: dict[str, str]) -> None:
        self.place = Path(options["dir"])
        with contextlib.suppress(FileExistsError):
            (self.place / f"setup-{os.getpid()}").touch(exist_ok=False)
        if (self.place / "slow").exists():
            time.sleep(600)
        if (self.place / "closes").exists():
            os.closerange(3, 256)
            time.sleep(600)
        if (self.place / "broken").exists():
            raise RuntimeError("no GPU")
        self.jobs = 0

    def handle(self, job: Job, path: Path) -> Result:
        self.jobs += 1
        return Result(f"job {self.jobs}", {"pid": os.getpid()})

    def close(self) -> None:
        (self.place / f"close-{os.getpid()}").touch()


def escape(job: Job, path: Path) -> Result:
    """Return what a handler can reach: its own files, another's, an address of this machine."""
    reached = {}

    def attempt(name: str, action: Callable[[], object]) -> None:
        try:
            action()
            reached[name] = "ok"
        except OSError as error:
            reached[name] = "PermissionError" if isinstance(error, PermissionError) else "OSError"

    attempt("own file", path.read_bytes)
    attempt("own temporary file", lambda: tempfile.TemporaryFile().close())
    attempt("secret", Path(job.options["secret"].removeprefix("at ")).read_text)
    attempt("key", Path(f"/proc/{os.getppid()}/environ").read_bytes)
    attempt("signal", lambda: os.kill(os.getppid(), 0))
    attempt("network", lambda: socket.create_connection(("127.0.0.1", 9), timeout=5))
    return Result(json.dumps(reached))


def takes_one(job: Job) -> Result:
    return Result("never called")


def says_str(job: Job, path: Path) -> str:
    return "never called"
