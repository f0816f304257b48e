"""Writes what bench/full.py measured into docs/benchmarks.md: two tables between two marks, and a picture.

    .venv/bin/python bench/report.py [--from build/bench-full] [--check]

Whatever stands outside of the marks is kept. `--check` prints and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.bar_chart import Bar, bar_chart  # noqa: E402
from bench.wanted import WANTED, Found  # noqa: E402

PAGE = ROOT / "docs/benchmarks.md"
PICTURE = "images/benchmarks.svg"  # below docs
BEGIN, END = "<!-- bench/report.py: begin -->", "<!-- bench/report.py: end -->"


def main() -> int:
    """Renews the page; 1 where there is nothing to write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="kept", type=Path, default=ROOT / "build/bench-full")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(asked.kept.glob("*.json"))}
    if not found:
        print(f"no JSON in {asked.kept}: make bench-full", file=sys.stderr)
        return 1
    written = "\n\n".join(part for part in (runs(found), wanted(found), baselines(found)) if part)
    print(written)
    if asked.check:
        return 0
    if "baselines" in found:
        (PAGE.parent / PICTURE).write_text(picture(found["baselines"]))
    PAGE.write_text(renewed(PAGE.read_text(), written))
    return 0


def renewed(page: str, written: str) -> str:
    """The page with other text between the marks. Raises SystemExit where they are not there once each, in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise SystemExit(f"{PAGE} must hold {BEGIN} and, below it, {END} once each")
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


def runs(found: Found) -> str:
    """When, where and under which load each was measured, one line for those of one machine and commit."""
    told: dict[str, list[str]] = {}
    for name, kept in found.items():
        about = re.match(r"(\S+ \S+) UTC, (.*?), load ([\d.]+)", kept.get("about", ""))
        when, where, load = about.groups() if about else ("?", "?", "?")
        told.setdefault(where, []).append(f"{name} {when} (load {load})")
    return "\n\n".join(f"{where}: {', '.join(names)} UTC." for where, names in told.items())


def wanted(found: Found) -> str:
    """Each figure with its bound; bold where the bound does not hold."""
    lines = ["| figure | wanted | seen: median (least–most) |", "| --- | --- | --- |"]
    for row in WANTED:
        values = row.seen(found)
        text = spread(values, row.unit) if values else "not measured"
        lines.append(f"| {row.figure} | {row.bound()} | {f'**{text}**' if row.holds(values) is False else text} |")
    return "\n".join(lines)


def baselines(found: Found) -> str:
    """Rates of one interleaved run, and what the bridge makes of each."""
    if "baselines" not in found:
        return ""
    kept = found["baselines"]
    lines = ["| lifecycles or jobs a second | median (least–most) | the bridge ÷ it |", "| --- | --- | --- |"]
    by_other = {name.partition(" ÷ ")[2]: values for name, values in kept["ratios"].items() if name.startswith(OURS)}
    for name, values in _measured(kept).items():
        ratio = spread(by_other[name], "") if name in by_other else ""
        lines.append(f"| {name} | {spread(values, '')} | {ratio} |")
    return "\n".join(lines) + f"\n\n![The same as bars]({PICTURE})"


OURS = "bridge, 128 connections"


def _measured(kept: Any) -> dict[str, list[float]]:
    rates = {name: [one for one in values if one] for name, values in kept["rates"].items()}
    return {name: values for name, values in rates.items() if values}


def picture(kept: Any) -> str:
    """The bars of the rates."""
    bars = [
        Bar(name, statistics.median(values), min(values), max(values), name.startswith("bridge"))
        for name, values in _measured(kept).items()
    ]
    return bar_chart("Lifecycles or jobs a second, one interleaved run", bars)


def spread(values: list[float], unit: str) -> str:
    """The median, and least and most where there are several."""

    def short(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    median = short(statistics.median(values))
    return f"{median}{unit}" if len(values) == 1 else f"{median}{unit} ({short(min(values))}–{short(max(values))})"


if __name__ == "__main__":
    sys.exit(main())
