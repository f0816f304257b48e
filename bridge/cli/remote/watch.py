"""Watching: jobs until they have ended, or the queues until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bridge.cli.console import coloured, console, print_json, table, text
from bridge.cli.errors import RefusedByBridge, Unreachable
from bridge.cli.remote.http import Answer, Bridge
from bridge.cli.remote.job_tables import explanation, progress
from bridge.cli.remote.worker_tables import overview
from bridge.cli.text import clean
from bridge.names import API_BASE
from models.job_state import FINAL, JobState

#: How the command ends: the first of these that any job came to.
EXITS = {JobState.FAILED: 4, JobState.TIMEOUT: 5, JobState.CANCELLED: 6, JobState.COMPLETED: 0}
INTERRUPTED = 130
PATIENCE = 120.0  # seconds that a bridge which answered once may be silent, as while it restarts


class Eye:
    """Looks at the bridge again and again, also while it does not answer for a time; `trouble` then says so."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._heard: float | None = None
        self.trouble = ""

    def get(self, path: str) -> Answer | None:
        """Return an answer, or None this time. Raises Unreachable, RefusedByBridge if there will be none."""
        try:
            answer = self._bridge.get(path)
        except (RefusedByBridge, Unreachable) as problem:
            passing = isinstance(problem, Unreachable) or problem.passing
            if not passing or self._heard is None or time.monotonic() - self._heard > PATIENCE:
                raise
            self.trouble = f"{problem}; trying again"
            return None
        self._heard, self.trouble = time.monotonic(), ""
        return answer

    def words(self) -> Text:
        return text(self.trouble, "red")


def watch_queues(bridge: Bridge, every: float) -> None:
    """Show the queues, on a terminal until Ctrl-C. Raises Unreachable, RefusedByBridge."""
    paper, eye = console(), Eye(bridge)
    try:
        with _screen(paper, kept=True) as screen:
            numbers: dict[str, Any] = {}
            while True:
                if answer := eye.get(f"{API_BASE}/statistics"):
                    numbers = answer.body
                shown = overview(numbers)
                if screen is None:
                    paper.print(shown)
                    return
                head = Text(f"{datetime.now(UTC):%H:%M:%S} UTC, Ctrl-C ends", style="dim")
                screen.update(Group(head, shown, eye.words()), refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        return


def watch_jobs(bridge: Bridge, names: Mapping[str, str], every: float = 1.0, *, json: bool) -> int:
    """Watch jobs (ID → what people call it) until all have ended; return the exit status, which says how.

    On a terminal live, else a line for each change; with `json` nothing but their statuses at the end, of a single one
    without a name as the API gives it. Raises Unreachable, RefusedByBridge.
    """
    paper, eye = console(), Eye(bridge)
    seen: dict[str, dict[str, Any]] = {}
    alone = next(iter(names)) if len(names) == 1 else None
    try:
        with nullcontext() if json else _screen(paper, kept=False) as screen:
            while True:
                for job_id in [job_id for job_id in names if not _ended(seen.get(job_id))]:
                    answer = eye.get(f"{API_BASE}/{job_id}/status")
                    if answer and _news(seen.get(job_id)) != _news(answer.body) and not json and screen is None:
                        _tell(paper, answer.body, names[job_id])
                    if answer:
                        seen[job_id] = answer.body
                if all(_ended(seen.get(job_id)) for job_id in names):
                    break
                if screen is not None:
                    why = eye.get(f"{API_BASE}/{alone}/explain") if alone else None
                    shown = explanation(why, paper.width) if why else _table(seen.values(), names)
                    screen.update(Group(shown, eye.words()), refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        return INTERRUPTED
    jobs = [seen[job_id] for job_id in names]
    if json:
        print_json({"jobs": jobs} if names[jobs[0]["job_id"]] else jobs[0])
    elif paper.is_terminal:
        paper.print(_table(jobs, names))
    return next(status for state, status in EXITS.items() if any(job["status"] == state for job in jobs))


def _screen(paper: Console, *, kept: bool) -> AbstractContextManager[Live | None]:
    return Live(console=paper, auto_refresh=False, transient=not kept) if paper.is_terminal else nullcontext()


def _ended(job: Mapping[str, Any] | None) -> bool:
    return job is not None and job["status"] in FINAL


def _news(job: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """Return what is shown when it changes."""
    return None if job is None else (job["status"], job["attempt"], job["progress"], job["message"])


def _note(job: Mapping[str, Any]) -> str:
    """Return what there is to say about a job in this state."""
    if job["status"] == JobState.PROCESSING:
        return ", ".join(filter(None, (f"attempt {job['attempt']} by {job['worker_id']}", progress(job))))
    return job["error_message"] or ""


def _tell(paper: Console, job: Mapping[str, Any], name: str) -> None:
    words = " ".join(filter(None, (job["job_id"], name, job["status"], _note(job))))
    paper.print(f"{datetime.now(UTC):%H:%M:%S} {clean(words)}", soft_wrap=True)


def _table(jobs: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> RenderableType:
    named = any(names.values())
    rows = table("Job", "Status", *(["File"] if named else []), "Note", give=["File", "Note"])
    for job in jobs:
        name = [text(names[job["job_id"]])] if named else []
        rows.add_row(text(job["job_id"]), coloured(job["status"]), *name, text(_note(job)))
    return rows
