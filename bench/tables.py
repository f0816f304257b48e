"""The tables of docs/benchmarks.md, made from the JSON of bench/full.py; empty if nothing was measured."""

from __future__ import annotations

import re
import statistics
from typing import Any

from bench.lifecycles import PHASES
from bench.wanted import WANTED, Found, points, ratios

OURS = "bridge, 128 connections"
PICTURE = "images/benchmarks.svg"  # below docs


def runs(found: Found) -> str:
    """Return when, where and under which load each was measured, one line per machine and commit."""
    told: dict[str, list[str]] = {}
    for name, kept in found.items():
        about = re.match(r"(\S+ \S+) UTC, (.*?), load ([\d.]+)", kept.get("about", ""))
        when, where, load = about.groups() if about else ("?", "?", "?")
        told.setdefault(where, []).append(f"{name} {when} (load {load})")
    return "\n\n".join(f"{where}: {', '.join(names)} UTC." for where, names in told.items())


def wanted(found: Found) -> str:
    """Return the table of figures with their bounds; bold where a bound does not hold."""
    lines = ["| figure | wanted | seen: median (least–most) |", "| --- | --- | --- |"]
    for row in WANTED:
        values = row.seen(found)
        text = spread(values, row.unit) if values else "not measured"
        lines.append(f"| {row.figure} | {row.bound()} | {f'**{text}**' if row.holds(values) is False else text} |")
    return "\n".join(lines)


def baselines(found: Found) -> str:
    """Return the table of the rates of one interleaved run, and the bridge's ratio to each."""
    if "baselines" not in found:
        return ""
    kept = found["baselines"]
    lines = ["| lifecycles or jobs a second | median (least–most) | the bridge ÷ it |", "| --- | --- | --- |"]
    by_other = {name.partition(" ÷ ")[2]: values for name, values in kept["ratios"].items() if name.startswith(OURS)}
    for name, values in rates(kept).items():
        ratio = spread(by_other[name], "") if name in by_other else ""
        lines.append(f"| {name} | {spread(values, '')} | {ratio} |")
    return "\n".join(lines) + f"\n\n![The same as bars]({PICTURE})"


def rates(kept: Any) -> dict[str, list[float]]:
    """Return the rates of each, without failed rounds."""
    all_ = {name: [one for one in values if one] for name, values in kept["rates"].items()}
    return {name: values for name, values in all_.items() if values}


def lifecycles(found: Found) -> str:
    """Return the table of echo and bridge at each number of connections, with one process and with two."""
    lines = [
        "| processes, connections | lifecycles/s: echo | bridge | ÷ echo | CPU of the API (µs): echo, bridge "
        f"| bridge, p50 / p99 (ms): {'; '.join(PHASES)} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, processes in (("lifecycles", 1), ("lifecycles-2", 2)):
        kept = found.get(name, {"points": []})
        for count in sorted({one["connections"] for one in kept["points"]}):
            echo, ours = points(kept, "echo", count), points(kept, "bridge", count)
            compared = ratios(kept, "bridge", "echo", count)
            if not compared:
                continue
            cells = [spread([one["lifecycles"] for one in of_it], "") for of_it in (echo, ours)]
            cpu = ", ".join(f"{statistics.median(one['cpu'] for one in of_it):.0f}" for of_it in (echo, ours))
            times = "; ".join(
                " / ".join(_short(statistics.median(one[which][phase] for one in ours)) for which in ("p50", "p99"))
                for phase in PHASES
            )
            lines.append(f"| {processes}, {count} | {' | '.join(cells)} | {spread(compared, '')} | {cpu} | {times} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def dispatch(found: Found) -> str:
    """Return the table of parked polls: how soon a job reaches one of them, and what they cost."""
    if "dispatch" not in found:
        return ""
    kinds = ("from the answer", "from sending", "create")
    lines = [
        "| parked polls (two API processes) | from the create's answer, p50 / p99 (ms) | from sending it | the create "
        "| memory of the API |",
        "| --- | --- | --- | --- | --- |",
    ]
    for count, row in found["dispatch"]["parked"].items():
        times = " | ".join(" / ".join(spread(list(one), "") for one in zip(*row[kind], strict=True)) for kind in kinds)
        lines.append(f"| {int(count):,} | {times} | {row['memory']:.0f} MiB |")
    return "\n".join(lines)


def spread(values: list[float], unit: str) -> str:
    """Return the median, with the least and the most if there are several values."""
    median = _short(statistics.median(values))
    return f"{median}{unit}" if len(values) == 1 else f"{median}{unit} ({_short(min(values))}–{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


TABLES = (runs, wanted, baselines, lifecycles, dispatch)
