"""Refuse a measurement of coverage that reached too few lines or branches: `coverage_bounds.py coverage.json`."""

import json
import sys
from pathlib import Path

LEAST = {"lines": 98.0, "branches": 95.0}  # per cent


def main() -> int:
    """Print both shares; return 1 if one is below its bound."""
    totals = json.loads(Path(sys.argv[1]).read_text())["totals"]
    reached = {
        "lines": 100 * totals["covered_lines"] / totals["num_statements"],
        "branches": 100 * totals["covered_branches"] / totals["num_branches"],
    }
    for what, least in LEAST.items():
        print(f"{what}: {reached[what]:.1f} % reached, at least {least:.0f} % wanted")
    return int(any(reached[what] < least for what, least in LEAST.items()))


if __name__ == "__main__":
    sys.exit(main())
