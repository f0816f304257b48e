"""All measurements, one after the other, within an hour: JSON of each in build/bench-full (short: build/bench-look).

    .venv/bin/python bench/full.py [--short] [--only NAME,…] [--against DIR]

A measurement that fails or takes too long is reported, and the next one follows. `bench/report.py` writes the tables.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
HOUR = 3600.0


class Command(NamedTuple):
    """A measurement: its limit in minutes, and its arguments for a figure and for a look."""

    minutes: float
    figure: list[str]
    look: list[str] | None  # None: not in a short run


_LOOK = ["--short"]
COMMANDS = {
    "lifecycles": Command(8, ["bench/lifecycles.py", "--rounds", "5"], _LOOK),
    "baselines": Command(14, ["bench/baselines.py", "--rounds", "5"], _LOOK),
    "dispatch": Command(6, ["bench/dispatch.py"], _LOOK),
    "storm": Command(4, ["-m", "bench.parked", "storm"], ["--polls", "200"]),
    "growth": Command(20, ["bench/growth.py", "--rounds", "5"], _LOOK),
    "continuation": Command(3, ["bench/continuation.py"], _LOOK),
    "bulk": Command(3, ["bench/bulk.py", "--rounds", "5"], _LOOK),
    "intake": Command(4, ["bench/intake_rate.py", "--rounds", "5"], _LOOK),
    "download": Command(6, ["bench/download.py", "--rounds", "5"], ["--mib", "64", "--rounds", "1"]),
    "lifecycles-2": Command(8, ["bench/lifecycles.py", "--rounds", "5", "--processes", "2"], None),
    "starvation": Command(12, ["-m", "bench.parked", "starvation"], None),
}


def main() -> int:
    """Run them all; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--only", default="", help=f"of {', '.join(COMMANDS)}; comma-separated")
    parser.add_argument("--against", help="an installed checkout that `lifecycles` measures beside this one")
    asked = parser.parse_args()
    only = [name for name in asked.only.split(",") if name]
    if unknown := set(only) - set(COMMANDS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    place = ROOT / "build" / ("bench-look" if asked.short else "bench-full")
    place.mkdir(parents=True, exist_ok=True)
    # Background processes of a shell without a terminal ignore this signal, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end, failed = time.monotonic() + HOUR, []
    for name, command in COMMANDS.items():
        if (only and name not in only) or (asked.short and command.look is None):
            continue
        arguments = [*command.figure, *((command.look or []) if asked.short else [])]
        if asked.against and name == "lifecycles":
            arguments += ["--against", asked.against]
        seconds = min(60 * command.minutes, end - time.monotonic())
        if (problem := measured(name, arguments, place, seconds)) is not None:
            failed.append(name)
            print(f"{name}: {problem}", file=sys.stderr, flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all were measured", f"(JSON in {place.relative_to(ROOT)})")
    return 1 if failed else 0


def measured(name: str, arguments: list[str], place: Path, seconds: float) -> str | None:
    """Run one of them; return why it has no figure, or None. The JSON of an earlier run is removed first."""
    if seconds <= 0:
        return "not begun: the hour is over"
    kept = place / f"{name}.json"
    kept.unlink(missing_ok=True)
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    command = [sys.executable, *arguments, "--json", str(kept)]
    # Started in the background of a shell, this ignores SIGINT, by which a measurement is ended.
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=hears)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    except BaseException:
        _end(process)
        raise
    if status is None:
        _end(process)
        return f"ended after {seconds:g} s"
    print(f"   {time.monotonic() - began:.0f} s", flush=True)
    return None if status == 0 else f"status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End its process group by SIGINT, as a terminal does, so that it stops what it started; kill it after a minute."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
