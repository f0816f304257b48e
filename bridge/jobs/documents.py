"""The documents of a job: its task options, and its result's metadata and content. Each may be as large as a body.

Only a small document is read with its row. In the place of a larger one stands `Unread`, which is read in pieces
while it is sent, so that no answer holds a document as a whole, however many of them nobody reads.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Text, case, cast, func, text

from bridge.errors import NotFound
from bridge.runtime import Runtime
from models.job import remote_jobs

AT_ONCE = 16 * 1024  # bytes of a document that is read with its row
PIECE = 512 * 1024  # characters that are read at a time of a larger one


class Document(StrEnum):
    """What may be large."""

    TASK_OPTIONS = "task_options"  # JSON, given on as the text that it is stored as
    METADATA = "metadata"  # JSON, likewise
    CONTENT = "content"  # text


class Unread(NamedTuple):
    """Stands for a document that is not read yet."""

    job_id: UUID
    document: Document


_SOURCES = {
    Document.TASK_OPTIONS: ("CAST(task_options AS text)", "remote_jobs WHERE id"),
    Document.METADATA: ("CAST(json_object_field(result_data, 'metadata') AS text)", "remote_jobs WHERE id"),
    Document.CONTENT: ("content", "job_results WHERE job_id"),
}
# OFFSET 0: the text is made once, not for its size and for the piece.
SOME = {
    document: text(f"""
SELECT substr(document, :start, {PIECE}) AS piece, octet_length(document) AS size
FROM (SELECT {column} AS document FROM {table} = :id OFFSET 0) stored
""")
    for document, (column, table) in _SOURCES.items()
}


def text_of(document: Document, columns: Any) -> ColumnElement[Any]:
    """The text of a document, of columns with the names that they have in its table."""
    if document is Document.CONTENT:
        return cast(columns.content, Text)
    whole = document is Document.TASK_OPTIONS
    return cast(columns.task_options if whole else func.json_object_field(columns.result_data, document), Text)


def shown(document: Document, columns: Any = remote_jobs.c) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The columns of a document in an answer: its text, where it is small, and its size in bytes."""
    text_, size = text_of(document, columns), func.octet_length(text_of(document, columns))
    return case((size <= AT_ONCE, text_)).label(document), size.label(size_of(document))


def size_of(document: Document) -> str:
    """The name of the column of its size."""
    return f"{document}_size"


def processing_time(columns: Any = remote_jobs.c) -> ColumnElement[Any]:
    """What a result says of it, as JSON."""
    return cast(func.json_object_field(columns.result_data, "processing_time"), Text).label("processing_time")


def head(runtime: Runtime, job_id: UUID, document: Document, most: int) -> tuple[str, int]:
    """The first characters of a document, and its size in bytes; empty where there is none. `most`: up to PIECE."""
    with runtime.engine.connect() as connection:
        row = connection.execute(SOME[document], {"id": job_id, "start": 1}).one_or_none()
    return ("", 0) if row is None or row.size is None else (row.piece[:most], row.size)


def in_pieces(
    runtime: Runtime,
    unread: Unread,
    in_turn: Callable[[], AbstractContextManager[Any]],
    encoded: Callable[[str], bytes] = str.encode,
) -> Iterator[bytes]:
    """A document as its text, in pieces, each read `in_turn`. Between two no connection to PostgreSQL is held.

    Raises NotFound where the document has changed meanwhile or its job is purged, and SQLAlchemyError.
    """
    start, size, last = 1, None, False
    while not last:
        with in_turn(), runtime.engine.connect() as connection:
            row = connection.execute(SOME[unread.document], {"id": unread.job_id, "start": start}).one_or_none()
        if row is None or row.size is None or size not in (None, row.size):
            raise NotFound(f"The {unread.document} of job {unread.job_id} changed while it was sent.")
        start, size, last = start + PIECE, row.size, len(row.piece) < PIECE
        piece = encoded(row.piece)
        del row  # what waits to be sent is held once
        yield piece


def as_json(runtime: Runtime, unread: Unread, in_turn: Callable[[], AbstractContextManager[Any]]) -> Iterator[bytes]:
    """The same as JSON text. Raises the same."""
    if unread.document is not Document.CONTENT:
        yield from in_pieces(runtime, unread, in_turn)
        return
    yield b'"'
    yield from in_pieces(runtime, unread, in_turn, _in_a_string)
    yield b'"'


def _in_a_string(text_: str) -> bytes:
    return orjson.dumps(text_)[1:-1]
