"""The documents of a job: its task options, its result's metadata and content, and its checkpoint.

Each may be as large as a body; a checkpoint has a bound of its own.

Only a small document is read with its row. `Unread` takes the place of a larger one: when it is to be sent, it goes
from PostgreSQL into a file, piece by piece, and from there to the client, so that no answer holds a document in memory,
however many of them nobody reads.
"""

from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Connection, Text, case, cast, func, text

from bridge.blobs.content import pieces
from bridge.errors import NotFound
from bridge.runtime import Runtime
from models.job import remote_jobs

AT_ONCE = 16 * 1024  # bytes of a document that is read with its row
PIECE = 512 * 1024  # bytes that are read at a time of a larger one
SENT = 64 * 1024  # bytes that are sent at a time
IN_MEMORY = 256 * 1024  # bytes of a document that needs no file


class Document(StrEnum):
    """A document of a job; any of them may be large."""

    TASK_OPTIONS = "task_options"  # JSON, given on as the text that it is stored as
    METADATA = "metadata"  # JSON, likewise
    CONTENT = "content"  # text
    CHECKPOINT = "checkpoint"  # text, of a job that is being worked on


class Unread(NamedTuple):
    """A placeholder for a document that is not read yet."""

    job_id: UUID
    document: Document


_SOURCES = {
    Document.TASK_OPTIONS: ("CAST(task_options AS text)", "remote_jobs WHERE id"),
    Document.METADATA: ("CAST(json_object_field(result_data, 'metadata') AS text)", "remote_jobs WHERE id"),
    Document.CONTENT: ("content", "job_results WHERE job_id"),
    Document.CHECKPOINT: ("checkpoint", "job_checkpoints WHERE job_id"),
}
# OFFSET 0: the document is unpacked once, not for each of its pieces.
PIECES = {
    document: text(f"""
SELECT substr(whole, start, {PIECE}) AS piece
FROM (SELECT convert_to({column}, 'UTF8') AS whole FROM {table} = :id OFFSET 0) stored,
  generate_series(1, greatest(octet_length(whole), 1), {PIECE}) AS start
""")
    for document, (column, table) in _SOURCES.items()
}


HEADS = {
    document: text(f"SELECT left({column}, :most) AS head, octet_length({column}) AS size FROM {table} = :id")
    for document, (column, table) in _SOURCES.items()
}


class UnreadFile(NamedTuple):
    """A placeholder for a text that was uploaded, with its length in bytes."""

    upload_id: UUID
    length: int


def text_of(document: Document, columns: Any) -> ColumnElement[Any]:
    """Return the text of a document as an expression of columns that are named as in its table."""
    if document is Document.CONTENT:
        return cast(columns.content, Text)
    whole = document is Document.TASK_OPTIONS
    return cast(columns.task_options if whole else func.json_object_field(columns.result_data, document), Text)


def shown(document: Document, columns: Any = remote_jobs.c) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return the columns of a document in an answer: its text, if it is small, and its size in bytes."""
    text_, size = text_of(document, columns), func.octet_length(text_of(document, columns))
    return case((size <= AT_ONCE, text_)).label(document), size.label(size_of(document))


def size_of(document: Document) -> str:
    """Return the name of the column that holds the document's size."""
    return f"{document}_size"


def processing_time(columns: Any = remote_jobs.c) -> ColumnElement[Any]:
    """Return the column of the processing time (seconds, as JSON) that a result states."""
    return cast(func.json_object_field(columns.result_data, "processing_time"), Text).label("processing_time")


def head(runtime: Runtime, job_id: UUID, document: Document, most: int) -> tuple[str, int]:
    """Return the first `most` characters of a document and its size in bytes; empty and 0 if there is none."""
    with runtime.single.connect() as connection:
        row = connection.execute(HEADS[document], {"id": job_id, "most": most}).one_or_none()
    return ("", 0) if row is None or row.size is None else (row.head, row.size)


InTurn = Callable[[], AbstractContextManager[Any]]


def as_json(runtime: Runtime, unread: Unread | UnreadFile, in_turn: InTurn) -> Iterator[bytes]:
    """Yield a document as JSON text, as it is now. It is read `in_turn`; no connection is held while it is sent.

    Raises NotFound if it is no longer there, SQLAlchemyError, and OSError if the file cannot be written; for an
    uploaded one Unavailable if the store does not answer, and UnicodeDecodeError if it returns something else.
    """
    if isinstance(unread, UnreadFile):
        yield from _file_as_json(runtime, unread)
    elif unread.document in (Document.CONTENT, Document.CHECKPOINT):
        yield b'"'
        yield from as_text(runtime, unread, in_turn, getincrementaldecoder("utf-8")().decode)
        yield b'"'
    else:
        yield from as_text(runtime, unread, in_turn)


def _file_as_json(runtime: Runtime, unread: UnreadFile) -> Iterator[bytes]:
    decode, left = getincrementaldecoder("utf-8")().decode, unread.length
    yield b'"'
    for piece in pieces(runtime, unread.upload_id, range(unread.length)):
        left -= len(piece)
        yield orjson.dumps(decode(piece))[1:-1]
    if left:
        raise NotFound("A part of the file is gone from the store.")
    yield b'"'


def as_text(
    runtime: Runtime, unread: Unread, in_turn: InTurn, decode: Callable[[bytes], str] | None = None
) -> Iterator[bytes]:
    """Yield it as it is stored, in UTF-8; as the inside of a JSON string if `decode` turns pieces into characters."""
    with SpooledTemporaryFile(IN_MEMORY) as file:
        with in_turn(), runtime.engine.connect() as connection:
            for piece in _pieces(connection, unread):
                file.write(piece if decode is None else orjson.dumps(decode(piece))[1:-1])
        file.seek(0)
        while piece := file.read(SENT):
            yield piece


def _pieces(connection: Connection, unread: Unread) -> Iterator[bytes]:
    """Yield the text of a document in UTF-8, in pieces that may end within a character."""
    slowly = connection.execution_options(stream_results=True, max_row_buffer=1)
    found = False
    for (piece,) in slowly.execute(PIECES[unread.document], {"id": unread.job_id}):
        if piece is None:
            break
        found = True
        yield bytes(piece)
    if not found:
        raise NotFound(f"The {unread.document} of job {unread.job_id} is no longer there.")
