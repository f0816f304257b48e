"""Writes the figures of bench/full.py into docs/benchmarks.md: tables between two marks, and a picture.

    .venv/bin/python bench/report.py [--from build/bench-full] [--check]

Whatever is outside the marks is kept. `--check` prints and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.bar_chart import Bar, bar_chart  # noqa: E402
from bench.tables import PICTURE, TABLES, rates  # noqa: E402

PAGE = ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- bench/report.py: begin -->", "<!-- bench/report.py: end -->"


def main() -> int:
    """Update the page; return 1 if there is nothing to write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="kept", type=Path, default=ROOT / "build/bench-full")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(asked.kept.glob("*.json"))}
    if not found:
        print(f"no JSON in {asked.kept}: make bench-full", file=sys.stderr)
        return 1
    written = "\n\n".join(part for part in (table(found) for table in TABLES) if part)
    print(written)
    if asked.check:
        return 0
    if "baselines" in found:
        (PAGE.parent / PICTURE).write_text(picture(found["baselines"]))
    PAGE.write_text(renewed(PAGE.read_text(), written))
    return 0


def renewed(page: str, written: str) -> str:
    """Return the page with new text between the marks. Raises SystemExit unless each is there once, in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise SystemExit(f"{PAGE} must hold {BEGIN} and, below it, {END} once each")
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


def picture(kept: Any) -> str:
    """Return the bar chart of the rates."""
    bars = [
        Bar(name, statistics.median(values), min(values), max(values), name.startswith("bridge"))
        for name, values in rates(kept).items()
    ]
    return bar_chart("Lifecycles or jobs a second, one interleaved run", bars)


if __name__ == "__main__":
    sys.exit(main())
