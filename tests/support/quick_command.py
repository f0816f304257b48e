"""The command `jobbridge` in a process that has its modules already: up to half a second of imports less each time.

For tests of what a command does. How it starts is tested with the installed one (tests/support/command.py).
"""

import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bridge.cli import main
from tests.support.command import environment
from tests.support.waiting import LATEST

_forks = multiprocessing.get_context("forkserver")
# Also what single commands import for themselves: of those that ask PostgreSQL, of `doctor`.
_forks.set_forkserver_preload(
    ["bridge.cli.app", "bridge.cli.local.doctor.examine", "models.migrations", "tests.support.quick_command"]
)


def _run(arguments: tuple[str, ...], cwd: str, around: dict[str, str], place: str) -> None:
    """In a fork: what the installed command does, its output into files."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(around)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        with open(f"{place}/{number}", "wb") as out:
            os.dup2(out.fileno(), number)
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding="utf-8", errors="strict" if number == 1 else "backslashreplace")
    sys.argv = ["jobbridge", *arguments]
    main()


def quick_jobbridge(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with TemporaryDirectory() as place:
        process = _forks.Process(target=_run, args=(arguments, str(cwd), environment(**settings), place))
        process.start()
        process.join(LATEST)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, LATEST)
        out, err = (Path(place, number).read_text() for number in ("1", "2"))
        return subprocess.CompletedProcess(arguments, process.exitcode, out, err)
