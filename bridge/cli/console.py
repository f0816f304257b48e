"""What commands print on: tables as wide as the terminal, and JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from bridge.cli.text import clean, value

_PIPE_WIDTH = 200  # a pipe has no width: little is cut for the program that reads it
WIDE = 110  # columns, from which on there is room for details
STYLES = {
    "pending": "yellow",
    "processing": "cyan",
    "completed": "green",
    "failed": "red",
    "timeout": "red",
    "cancelled": "dim",
    "failing": "red",
    "waiting": "yellow",
    "sent": "green",
    "confirmed": "green",
    "delivered": "green",
}


def console() -> Console:
    """Return standard output for people. A character that its encoding lacks becomes `?`."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    paper = Console(highlight=False, markup=False, emoji=False)
    if not paper.is_terminal:
        paper.width = _PIPE_WIDTH
    return paper


def print_json(document: Any) -> None:
    """Print the document as it came, in ASCII: what a terminal would obey is escaped."""
    print(json.dumps(document, indent=2))


def text(content: object, style: str = "") -> Text:
    """Make others' text harmless, without markup."""
    return Text(clean(content), style=style)


def line(content: object) -> Text:
    """Do the same, cut where it does not fit on one line."""
    return Text(clean(content), no_wrap=True, overflow="ellipsis")


def coloured(name: str) -> Text:
    return text(name, STYLES.get(name, ""))


def table(*columns: str, give: Iterable[str] = (), right: Iterable[str] = ()) -> Table:
    """Return an empty table. On a narrow terminal the columns in `give` get less; the others keep their words whole,
    above all a job's ID: the next command needs it."""
    made = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=name not in give, overflow="fold")
    return made


def print_noted(
    paper: Console, columns: Iterable[str], rows: Iterable[tuple[Iterable[Text], str]], right: Iterable[str] = ()
) -> None:
    """Print a list on a narrow terminal: a row's cells, and below them what a separate column would cut to nothing."""
    names, filled = list(columns), [(list(cells), note) for cells, note in rows]
    whole = [[Text(name, style="bold") for name in names], *(cells for cells, _ in filled)]
    widths = [max(cells[place].cell_len for cells in whole) for place in range(len(names))]
    for cells, note in zip(whole, ["", *(note for _, note in filled)], strict=True):
        for name, cell, width in zip(names, cells, widths, strict=True):
            cell.align("right" if name in right else "left", width)
        paper.print(Text(" ").join(cells), no_wrap=True, overflow="ellipsis")
        if note:
            paper.print(Text.assemble("  ", text(note)), no_wrap=True, overflow="ellipsis")


def print_detailed(
    paper: Console,
    columns: Iterable[str],
    rows: Iterable[tuple[list[Text], list[Any]]],
    details: list[str],
    right: Iterable[str],
) -> None:
    """Print a list whose rows have details: in columns of their own where it is wide, else below the row."""
    if paper.width >= WIDE:
        made = table(*columns, *details, give=details, right=right)
        for cells, told in rows:
            made.add_row(*cells, *(line(value(one)) for one in told))
        paper.print(made)
    else:
        print_noted(paper, columns, [(cells, ": ".join(filter(None, told))) for cells, told in rows], right)


def pairs(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Lay out names and values, one pair a line."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, content in rows:
        made.add_row(name, content)
    return made
