"""The documents say what the code does: tables are compared with it, links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import celeryconfig
from api.http import problems
from bench import recovery
from bridge import db, errors, redis_keys
from bridge.cli.local.checkout import ROOT
from bridge.job_events import CREATED, EVENTS
from bridge.jobs import expire_without_beat
from bridge.key_limits import KeyLimits
from bridge.outbox import outcomes
from bridge.settings import DEADLINES, PREFIX, Backoff, Settings
from models.job_state import EDGES, legal_moves

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/**/*.md"), ROOT / "worker/README.md"])


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    below = (DOCS / page).read_text().partition(f"\n{heading}\n")[2]
    assert below, f"{page} has no {heading!r}"
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table, f"{page}: no table below {heading!r}"
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code(cell: str) -> str:
    """Return what stands between the first backticks."""
    found = re.search(r"`([^`]*)`", cell)
    return found[1] if found else cell


def test_the_table_of_states_is_the_table_of_edges():
    table = rows("architecture.md", "## States")
    said = {code(change): (set(sources.split(", ")), target) for change, sources, target, _ in table}
    assert said == {str(change): ({str(s) for s in edge.sources}, str(edge.target)) for change, edge in EDGES.items()}


def test_the_diagram_of_states_shows_the_same_edges():
    diagram = (DOCS / "architecture.md").read_text().partition("stateDiagram-v2")[2].partition("```")[0]
    arrows = re.findall(r"(\w+) --> (\w+): (.+)", diagram)
    drawn = {(source, target): set(changes.split(", ")) for source, target, changes in arrows}
    assert set(drawn) == {(str(source), str(target)) for source, target in legal_moves()}
    for (source, target), changes in drawn.items():
        assert changes == {str(c) for c, edge in EDGES.items() if source in edge.sources and edge.target == target}


BACKOFF = ",".join(f"{name}={field.default:g}" for name, field in Backoff.model_fields.items())
LIMITS = ",".join(f"{name}={field.default}" for name, field in KeyLimits.model_fields.items())
# What is made at the start, in the words of the page.
MADE = {
    "api_processes": "number of cores",
    "trusted_proxies": "none",
    "source_roots": "<data dir>/files",
    "store": "file:<data dir>/uploads",
    "source_allow": "unset",
    "source_networks": "unset",
    "webhook_allow": "https://*",
    "webhook_networks": "unset",
    "timeout_seconds": DEADLINES,
    "retry_backoff": BACKOFF,
    "limits": LIMITS,
}
INSTRUMENTS = {"crash_points"}  # of the tests: CONTRIBUTING.md has them


def default(name: str) -> str:
    """Return a setting's default as the page writes it."""
    value = Settings.model_fields[name].default
    return MADE.get(name) or {None: "unset", True: "on", False: "off"}.get(value, str(value))


def test_the_table_of_settings_is_settings_py():
    said = {code(name): code(value) for name, value, _ in rows("operations.md", "## Settings")}
    assert said == {PREFIX + name.upper(): default(name) for name in Settings.model_fields if name not in INSTRUMENTS}


def test_the_table_of_redis_keys_has_every_key():
    said = {code(key) for key, *_ in rows("architecture.md", "## Redis keys")}
    named = re.findall(r"^    (bridge:.*?)  ", redis_keys.__doc__ or "", re.MULTILINE)
    limits = re.compile("(?<=bridge:limits:).*")  # those of the limits are one row there
    assert {limits.sub("", key.replace(" ", "_")) for key in named} == {limits.sub("", key) for key in said}


def test_every_room_is_in_the_architecture():
    said = set(re.findall(r"`(\w+/(?:\w+/)?)`", (DOCS / "architecture.md").read_text()))
    rooms = {f"bridge/{path.parent.name}/" for path in (ROOT / "bridge").glob("*/__init__.py")}
    assert not rooms - said


def test_the_table_of_sweeps_is_the_schedule():
    said = {code(task): every for task, every, _ in rows("architecture.md", "## Sweeps")}
    every = {entry["task"]: entry["schedule"] for entry in celeryconfig.beat_schedule.values()}
    assert said == {task: _period(seconds) for task, seconds in every.items()}


def _period(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds % 3600 == 0 else f"{seconds:g} s"


def given_codes() -> Iterator[str]:
    """Every `code` that the source can give."""
    yield from problems.CODES.values()
    yield from (error.code for error in vars(errors).values() if isinstance(getattr(error, "code", None), str))
    for room in ("api", "bridge"):
        for path in (ROOT / room).rglob("*.py"):
            yield from re.findall(r'code="([a-z_]+)"', path.read_text())


def test_every_error_code_is_explained():
    said = {code(cell) for _, cell, *_ in rows("protocol.md", "## 6. All errors")}
    assert set(given_codes()) <= said


def test_every_route_is_in_the_protocol(operations):
    page = (DOCS / "protocol.md").read_text()
    routes = {f"{method} {path.rstrip('/').replace('{job_id}', '{id}')}" for method, path in operations}
    assert not sorted(route for route in routes if not _documented(route, page))


def test_every_field_is_in_the_protocol(document, operations):
    page = (DOCS / "protocol.md").read_text()
    words = set(re.findall(r"[A-Za-z0-9_-]+", " ".join(re.findall(r"`[^`]+`", page))))
    fields = set()
    for (_, path), unresolved in operations.items():
        operation = _followed(unresolved, document["components"])
        fields |= {(path, one["name"]) for one in operation.get("parameters", ()) if one["in"] != "path"}
        fields |= {(path, name) for name in _properties(operation)}
    assert not sorted((path, name) for path, name in fields if name not in words)


def _followed(part: Any, components: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_followed(one, components) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        _, _, kind, name = part["$ref"].split("/")
        return _followed(components[kind][name], components)
    # A default response is flask-smorest's own; errors are documented one by one.
    return {name: _followed(inner, components) for name, inner in part.items() if name != "default"}


def _properties(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for one in part:
            yield from _properties(one)
    elif isinstance(part, dict):
        if isinstance(part.get("properties"), dict):
            yield from part["properties"]
        for inner in part.values():
            yield from _properties(inner)


def _documented(route: str, page: str) -> bool:
    """As `GET /path`, or after the first of several as `…/last` or `/last`."""
    path = route.partition(" ")[2]
    last = path.rpartition("/")[2]
    return f"`{route}`" in page or bool(re.search(rf"`[A-Z]+ /[^`]*`, `…?/{re.escape(last)}`", page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_each_test_that_the_page_on_security_names_exists():
    there = {path.name for folder in ("tests", "worker/tests") for path in (ROOT / folder).rglob("test_*.py")}
    page = (DOCS / "security.md").read_text()
    named = set(re.findall(r"[\w/]*\b(?:test_\w+|bench/\w+)\.py|\btests/\w+/(?=[ ,|:;])", page))
    assert len(named) > 50
    missing = {one for one in named if not (one in there if "/" not in one else (ROOT / one).exists())}
    assert not missing


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_bounds_of_the_guarantees_are_those_of_the_code():
    page = (DOCS / "guarantees.md").read_text()
    assert f"first {expire_without_beat.GRACE_SECONDS:.0f} s of a process" in page
    assert f"then those {expire_without_beat.GRACE_SECONDS:.0f} s + 2 s" in page
    every = {name: entry["schedule"] for name, entry in celeryconfig.beat_schedule.items()}
    period, resend = every["expire_jobs"], every["continue_ingestion"]
    assert f"`lease` + {period + 2:.0f} s" in page
    assert f"`ack` + {period + 2:.0f} s" in page
    # The stand-in notices as soon: what it is patient for, a tick, and a moment.
    assert period + 2 >= expire_without_beat.PATIENCE_SECONDS + expire_without_beat.TICK_SECONDS
    assert f"sent within {outcomes.VISIBILITY_SECONDS} s + {2 * resend:.0f} s" in page
    assert f"503 to each request after {db.ANSWER_SECONDS:.0f} s" in page
    assert f"up to {outcomes.LONGEST_WAIT_SECONDS} s" in page
    assert f"(2 s … {outcomes.LONGEST_DELAY_SECONDS} s)" in page
    measured = (recovery.SWEEP_BOUND, recovery.REDIS_BOUND, recovery.OUTCOME_BOUND)
    assert measured == (period + 2, 2, 2 * resend)
    assert "the first claim within 2 s" in page
    assert "sent within 20 s" in page


def test_the_operators_page_names_every_event_of_the_log():
    said = re.compile(r'\blog\.(?:debug|info|warning|error|exception)\)?\(\s*"(\w+)"')
    logged = {event for room in ("api", "bridge", "tasks") for file in (ROOT / room).rglob("*.py")
              for event in said.findall(file.read_text())}  # fmt: skip
    logs = (DOCS / "operations.md").read_text().partition("## Logs")[2]
    cells = re.findall(r"^\| (`.*?) \|", logs, re.M)
    named = {event for cell in cells for event in re.findall(r"`(\w+)`", cell)}
    assert len(logged) > 40
    assert logged == named - {CREATED, *EVENTS.values()}
