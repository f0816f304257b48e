"""The sheets of an XLSX as Markdown tables, of what is written in them: a lone cell may lie a million rows away."""

from __future__ import annotations

import datetime
from typing import Any, BinaryIO

import openpyxl  # type: ignore[import-untyped]


def convert(file: BinaryIO) -> str:
    """Return a heading and a table for each sheet, formulas as their stored values; nothing where nothing is written.

    Raises what openpyxl raises.
    """
    book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    try:
        tables = [(_text(sheet.title), _table(sheet)) for sheet in book.worksheets]
    finally:
        book.close()
    if not any(lines for _, lines in tables):
        return ""
    return "\n\n".join("\n".join([f"## {title}", *lines]) for title, lines in tables)


def _table(sheet: Any) -> list[str]:
    sheet.reset_dimensions()  # what the file says of them may be wrong, and is what formats reach to
    rows = [cells for row in sheet.iter_rows(values_only=True) if (cells := _cells(row))]
    columns = sorted({column for cells in rows for column in cells})
    lines = [f"| {' | '.join(cells.get(column, '') for column in columns)} |" for cells in rows]
    if lines:
        lines.insert(1, f"|{' --- |' * len(columns)}")
    return lines


def _cells(row: tuple[object, ...]) -> dict[int, str]:
    """Return the text of a row's cells, by column."""
    return {column: text for column, value in enumerate(row) if value is not None and (text := _text(value))}


def _text(value: object) -> str:
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    return " ".join(str(value).replace("|", r"\|").split())
