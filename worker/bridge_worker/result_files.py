"""The files of a handler's result on their way from its process to the worker, in the job's directory.

The handler's process leaves them there under fixed names; the worker moves them to a separate directory, where the
handler's process cannot replace them.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bridge_worker.text import one_line, storable

if TYPE_CHECKING:
    from bridge_worker.job import Result

INLINE_BYTES = 2**20  # of a text in UTF-8; a longer one goes as a file
MOST_ARTIFACTS = 1000
LONGEST_NAME = 200
_NO_FILE = (errno.ENOENT, errno.ELOOP, errno.ENXIO)  # nothing, a link, a socket
TEXT_FILE, ARTIFACT_FILE = "result-text", "artifact-{}"


class BadFiles(Exception):
    """What a handler returned as files is invalid; the text is one line."""


@dataclass
class Files:
    """The files of a result to upload."""

    text: Path | None = None
    artifacts: list[tuple[str, str, Path]] = field(default_factory=list)  # name, media type, file


def leave(result: Result, directory: Path) -> dict[str, Any]:
    """Leave the text and the artifacts for the worker; return the members of the result that name them.

    Raises OSError, and BadFiles for an invalid result.
    """
    content = storable(result.content) if result.path is None else ""
    fields: dict[str, Any] = {"content": content, "text": None, "artifacts": []}
    if result.path is not None:
        if result.content:
            raise BadFiles("the handler returned a Result with content and path; it has one text")
        _put(result.path, directory / TEXT_FILE)
        fields |= {"content": None, "text": TEXT_FILE}
    elif len(content) > INLINE_BYTES // 4 and len(encoded := content.encode()) > INLINE_BYTES:
        (directory / TEXT_FILE).write_bytes(encoded)
        fields |= {"content": None, "text": TEXT_FILE}
    artifacts = result.artifacts
    if not isinstance(artifacts, Mapping) or len(artifacts) > MOST_ARTIFACTS:
        raise BadFiles(f"the handler's artifacts must be a mapping of at most {MOST_ARTIFACTS}")
    for place, (name, what) in enumerate(artifacts.items()):
        if not _is_name(name):
            raise BadFiles(f"the handler's artifact {one_line(str(name), 200)!r}: no name of a file, or a hidden one's")
        _put(what, directory / ARTIFACT_FILE.format(place))
        fields["artifacts"].append(name)
    return fields


def _is_name(name: object) -> bool:
    """Return whether the bridge accepts the name (docs/protocol.md)."""
    return (
        isinstance(name, str)
        and 1 <= len(name) <= LONGEST_NAME
        and name.isprintable()
        and len(name.encode()) <= 255
        and not name.startswith(".")
        and not set(name) & set("/\\")
    )


def _put(what: object, place: Path) -> None:
    if isinstance(what, (bytes, bytearray, memoryview)):
        place.write_bytes(what)
        return
    if not isinstance(what, (str, os.PathLike)):
        raise BadFiles(f"the handler returned {type(what).__name__} as a file; bytes or a path are wanted")
    if not os.path.isfile(what):
        raise BadFiles(f"the handler returned {one_line(str(what), 200)!r} as a file, and there is none")
    try:
        if os.path.islink(what):
            raise OSError("what it names is wanted, not the link")
        os.replace(what, place)
    except OSError:
        shutil.copyfile(what, place)


def take(fields: dict[str, Any], directory: Path, into: Path) -> Files:
    """Move the files that a result names into a directory of the worker's; remove `text` and `artifacts` from it.

    Nothing that the handler's process sent or left is trusted. Raises BadFiles, OSError.
    """
    text, names = fields.pop("text", None), fields.pop("artifacts", None) or []
    if not isinstance(names, list) or len(names) > MOST_ARTIFACTS or not all(map(_is_name, names)):
        raise BadFiles("the handler's process told of artifacts that are none")
    if text is None and not isinstance(fields.get("content"), str):
        raise BadFiles("the handler's process left no text")
    files = Files()
    if text is not None:
        files.text = taken(directory / TEXT_FILE, into)
    for place, name in enumerate(names):
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        files.artifacts.append((name, media_type, taken(directory / ARTIFACT_FILE.format(place), into)))
    return files


def open_left(file: Path) -> BinaryIO:
    """Open a file that the handler's process left, never waiting. Raises OSError; BadFiles: nothing, a link, a pipe."""
    flags = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        fd = os.open(file, os.O_RDONLY | sum(flags))
    except OSError as error:
        if error.errno in _NO_FILE:
            raise BadFiles(f"the handler's process left no file as {file.name}") from None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise BadFiles(f"the handler's process left no file as {file.name}")


def taken(file: Path, into: Path) -> Path:
    """Move a file that the handler's process left; return its new place. Raises OSError, BadFiles."""
    place = into / file.name
    try:
        os.replace(file, place)  # of a link the link itself
    except FileNotFoundError:
        raise BadFiles(f"the handler's process left no {file.name}") from None
    if not stat.S_ISREG(place.lstat().st_mode):
        raise BadFiles(f"the handler's process left no file as {file.name}")
    return place
