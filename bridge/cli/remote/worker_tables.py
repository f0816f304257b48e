"""How workers and queues are shown to people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bridge.cli.console import WIDE, table, text
from bridge.cli.text import age, clean, span, took, until
from models.job_state import JobState


def workers_table(workers: list[dict[str, Any]], now: datetime, width: int) -> Table:
    """Lay out the workers, with whole names: `workers pause` takes them."""
    wide = width >= WIDE
    machines = ["Machine"] if wide else []
    names = ("Worker", *(["Key name"] if wide else []), "Key", "Types", "Seen", "In hand", "Slots", *machines, "Paused")
    rows = table(*names, give=["Worker", "Key name", "Types", *machines, "Paused"], right=["In hand", "Slots"])
    for one in workers:
        key = one["key"] or {"name": "–", "prefix": "–"}
        denied = [f"{kind} (denied)" for kind in one["denied_content_types"]]
        cells = [
            one["worker_id"],
            *([key["name"]] if wide else []),
            key["prefix"],
            " ".join([*one["content_types"], *denied]) or "–",
            age(one["last_seen"], now),
            str(one["jobs_in_hand"]),
            _slots(one),
            *([machine(one.get("facts") or {})] if wide else []),
        ]
        rows.add_row(*map(text, cells), _pause(one["paused"], now))
    return rows


def _slots(worker: dict[str, Any]) -> str:
    """Format free slots of all, as the worker says; a bridge of an earlier version does not report them."""
    busy, free = worker.get("slots_busy"), worker.get("slots_free")
    return "–" if free is None else f"{free} free" if busy is None else f"{free}/{busy + free} free"


def machine(facts: dict[str, Any]) -> str:
    """Format what a worker says about itself, as one line; a bridge of an earlier version does not report it."""
    memory, free = facts.get("memory"), facts.get("memory_free")
    room = None
    if memory is not None:
        room = f"{_gib(memory)} GiB" if free is None else f"{_gib(free)}/{_gib(memory)} GiB free"
    parts = [facts.get(name) for name in ("host", "version", "platform", "gpu")]
    return ", ".join(part for part in [*parts, room] if part) or "–"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def _pause(paused: dict[str, Any] | None, now: datetime) -> Text:
    if paused is None:
        return Text("")
    end = "until resumed" if paused["until"] is None else until(paused["until"], now).replace("in ", "for ")
    what = "drained " if paused.get("drain") else ""
    return text(f"{what}{end}, by {paused['by']}: {paused['reason']}", "yellow")


def overview(numbers: dict[str, Any]) -> Group:
    """Lay out the queues: content types with jobs by state, how long the oldest has waited, how long jobs take."""
    parked = numbers["parked_polls"]
    waiting = (
        "Redis is away" if parked is None else f"{parked} {'poll waits' if parked == 1 else 'polls wait'} for jobs"
    )
    return Group(_queues(numbers), Text(f"{waiting}.", style="dim"))


def _queues(numbers: dict[str, Any]) -> Table:
    states = [str(one) for one in JobState]
    columns = ("Type", *states, "Oldest", "Median")
    rows = table(*columns, give=["Type"], right=columns[1:])
    oldest, medians = numbers["oldest_pending_seconds_by_content_type"], numbers["median_durations"]
    for kind, counts in sorted(numbers["by_content_type"].items()):
        times = (_age(oldest.get(kind)), took(medians.get(kind, {}).get("seconds")))
        rows.add_row(text(kind), *(_count(counts, name) for name in states), *map(text, times))
    sums = [_count(numbers["by_status"], name, "bold") for name in states]
    rows.add_row(Text("all", style="bold"), *sums, text(_age(numbers["oldest_pending_seconds"]), "bold"), "")
    return rows


def _count(counts: dict[str, int], name: str, style: str = "") -> Text:
    number = counts.get(name, 0)
    return Text(str(number) if number else "·", style=style if number else "dim")


def _age(seconds: float | None) -> str:
    return "–" if seconds is None else span(seconds)


def sweeps_table(sweeps: list[dict[str, Any]]) -> Table:
    """Lay out the sweeps: when each ran last, what it found, and what it has left."""
    rows = table(
        "Sweep", "Ran before", "Took", "Changed", "Backlog", right=["Ran before", "Took", "Changed", "Backlog"]
    )
    for one in sweeps:
        backlog = "–" if one["backlog"] is None else str(one["backlog"])
        took = f"{one['took_seconds'] * 1000:.0f} ms"
        rows.add_row(clean(one["name"]), span(one["age_seconds"]), took, str(one["changed"]), backlog)
    return rows
