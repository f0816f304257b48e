"""What the workers of test_protocol.py do with a file: one line of it says what. A command, and a handler."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from bridge_worker import Job, PermanentError, Result

BAD_INPUT = 65  # EX_DATAERR


def convert(path: Path, cancelled: Callable[[], bool] = lambda: False) -> str:
    """`say TEXT`, `count` (its own bytes), `refuse WHY` or `await PLACE` (until PLACE.go exists)."""
    verb, _, rest = path.read_bytes().partition(b"\n")[0].decode().partition(" ")
    match verb:
        case "say":
            return rest
        case "count":
            return f"{path.stat().st_size} bytes"
        case "await":
            Path(f"{rest}.begun").touch()
            while not Path(f"{rest}.go").exists() and not cancelled():
                time.sleep(0.05)
            return "waited for"
    raise ValueError(rest)


def handle(job: Job, path: Path) -> Result:
    try:
        return Result(convert(path, lambda: job.is_cancelled))
    except ValueError as error:
        raise PermanentError(str(error)) from error


if __name__ == "__main__":
    try:
        print(convert(Path(sys.argv[1])), end="")
    except ValueError as refused:
        print(refused, file=sys.stderr)
        sys.exit(BAD_INPUT)
