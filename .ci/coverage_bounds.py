"""Refuse a run of the tests that reached too few lines or branches: `coverage_bounds.py FILE…`.

A FILE is what `.ci/measured` wrote. What no test reached stands in build/unreached.txt, file by file.
"""

import os
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import slipcover

ROOT = Path(__file__).parents[1]
LEAST = {"lines": 98.0, "branches": 95.0}  # per cent
PACKAGES = ["api", "bridge", "models", "tasks", "worker/bridge_worker", "client/jobbridge_client"]


def reached(files: list[str]) -> dict[str, set[int | tuple[int, ...]]]:
    """Return lines, and branches as pairs of lines, by file."""
    seen: dict[str, set[int | tuple[int, ...]]] = defaultdict(set)
    for entry in {line for file in files for line in Path(file).read_text().splitlines()}:
        path, _, where = entry.rpartition(":")
        numbers = tuple(map(int, where.split("-")))
        seen[str(ROOT / path)].add(numbers if len(numbers) == 2 else numbers[0])
    return seen


def main() -> int:
    """Print both shares; return 1 if one is below its bound."""
    os.chdir(ROOT)  # names of files are told from here
    exclude = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["slipcover"]["exclude-also"]
    measured = slipcover.Slipcover(branch=True, source=PACKAGES, exclude_also=exclude)
    measured.all_seen = reached(sys.argv[1:])
    result = measured.get_coverage()
    with Path("build/unreached.txt").open("w") as table:
        slipcover.print_coverage(result, outfile=table, skip_covered=True, missing_width=110)
    shares = {}
    for what in LEAST:
        covered, missing = (result["summary"][f"{kind}_{what}"] for kind in ("covered", "missing"))
        shares[what] = 100 * covered / (covered + missing)
        print(f"{what}: {shares[what]:.1f} % of {covered + missing} reached, at least {LEAST[what]:.0f} % wanted")
    print("What was not reached, file by file: build/unreached.txt")
    return int(any(shares[what] < least for what, least in LEAST.items()))


if __name__ == "__main__":
    sys.exit(main())
