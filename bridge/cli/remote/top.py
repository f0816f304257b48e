"""`jobbridge top`: queues, workers and rates in the terminal, live."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bridge.cli.console import console, print_json, text
from bridge.cli.options import Json, Url
from bridge.cli.remote.http import Answer, Bridge, bridge_at
from bridge.cli.remote.watch import Eye
from bridge.cli.remote.worker_tables import overview, workers_table
from bridge.names import API_BASE, API_ROOT, WEBHOOKS_BASE
from models.job_state import FINAL, JobState

_MOST_WORKERS = 200  # asked for; as many are shown as there are lines
# None of these should be failing; where to ask for each.
_TROUBLES = {"continuations": f"{API_ROOT}/continuations/", "webhooks": f"{WEBHOOKS_BASE}/"}


def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once and end, as without a terminal.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, max=3600, help="Between two looks.")] = 2.0,
    json: Json = False,
    url: Url = None,
) -> None:
    """Show queues, workers and rates, live; q ends.

    Rates are those between two looks. With --json, or without a terminal, one look.
    """
    bridge, paper = bridge_at(url), console()
    if json:
        print_json({"statistics": _statistics(bridge).body, "workers": _workers(bridge).body})
    elif once or not paper.is_terminal:
        paper.print(_shown(paper, _statistics(bridge), _workers(bridge), None, _troubles(bridge)))
    else:
        _live(bridge, paper, every)


def _statistics(bridge: Bridge | Eye) -> Any:
    return bridge.get(f"{API_BASE}/statistics")


def _workers(bridge: Bridge | Eye) -> Any:
    return bridge.get(f"{API_ROOT}/workers?limit={_MOST_WORKERS}")


def _troubles(bridge: Bridge | Eye) -> list[str]:
    """Return a line for each kind of outcome of which some were tried often and have not arrived."""
    told = []
    for name, path in _TROUBLES.items():
        answer = bridge.get(f"{path}?state=failing&limit=1")
        if answer is not None and answer.body[name]:
            told.append(f"Some {name} fail: see `jobbridge {name} list --state failing`.")
    return told


def _live(bridge: Bridge, paper: Console, every: float) -> None:
    """Show it until q or Ctrl-C. Raises Unreachable, RefusedByBridge."""
    eye, numbers, workers = Eye(bridge), None, None
    earlier: tuple[float, Any] | None = None
    with _keys() as pressed, Live(console=paper, auto_refresh=False, screen=True) as screen:
        try:
            while True:
                now = time.monotonic()
                numbers, workers = _statistics(eye) or numbers, _workers(eye) or workers
                troubles = _troubles(eye)
                if numbers is not None and workers is not None:
                    rates = None if earlier is None else _rates(*earlier, now, numbers.body)
                    screen.update(Group(_shown(paper, numbers, workers, rates, troubles), eye.words()), refresh=True)
                    if not eye.trouble:
                        earlier = (now, numbers.body)
                if pressed(every):
                    return
        except KeyboardInterrupt:
            return


def _rates(then: float, before: Mapping[str, Any], now: float, after: Mapping[str, Any]) -> dict[str, float]:
    """Return the jobs per second that reached each final state between two looks; purged ones count as none."""
    passed = max(now - then, 0.001)
    return {
        state: max(0, after["by_status"].get(state, 0) - before["by_status"].get(state, 0)) / passed for state in FINAL
    }


def _shown(
    paper: Console, numbers: Answer, workers: Answer, rates: Mapping[str, float] | None, troubles: Sequence[str]
) -> RenderableType:
    known = workers.body["workers"]
    counts = numbers.body["by_status"]
    busy = sum(1 for one in known if one["jobs_in_hand"])
    head = Text.assemble(
        (f"{datetime.now(UTC):%H:%M:%S} UTC", "bold"),
        f"  {counts.get(JobState.PENDING, 0)} wait, {counts.get(JobState.PROCESSING, 0)} run",
        f"  {workers.body['count']} worker{'' if workers.body['count'] == 1 else 's'}, {busy} busy",
        no_wrap=True,
        overflow="ellipsis",
    )
    told = [] if rates is None else [f"{rate:.1f}/s {state}" for state, rate in rates.items() if rate]
    speed = text("" if rates is None else ", ".join(told) or "nothing ended since the last look", "cyan")
    parts: list[RenderableType] = [head, speed, *(text(one, "yellow") for one in troubles), overview(numbers.body)]
    taken = 12 + len(troubles) + len(numbers.body["by_content_type"])  # lines
    room = len(known) if not paper.is_terminal else max(3, paper.height - taken)
    if known:
        parts += ["", workers_table(known[:room], workers.now, paper.width)]
    if (more := workers.body["count"] - min(room, len(known))) > 0:
        parts.append(Text(f"… and {more} more workers", style="dim"))
    if workers.body["redis"] == "away":
        parts.append(text("Redis is away: only workers that hold a job or are paused are known.", "yellow"))
    return Group(*parts)


@contextmanager
def _keys() -> Iterator[Any]:
    """Yield `pressed(seconds)`, which waits and returns whether q was pressed; restore the terminal afterwards."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)
    tty.setcbreak(place)

    def pressed(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([place], [], [], left)[0] and os.read(place, 64)[:1] in (b"q", b"Q", b""):
                return True
        return False

    try:
        yield pressed
    finally:
        termios.tcsetattr(place, termios.TCSADRAIN, before)
