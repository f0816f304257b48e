"""Source files: where they may lie."""

import os
from collections.abc import Iterable
from pathlib import Path

from bridge.errors import Invalid, NotFound


def check_source(path: str, roots: Iterable[Path]) -> None:
    """Refuse a path that is not an existing regular file under a root. Raises Invalid."""
    if not os.path.isabs(path):
        raise Invalid({"source_file_path": ["Must be an absolute path."]})
    if not _inside(path, roots):
        raise Invalid({"source_file_path": ["Must lie under one of the directories named by BRIDGE_SOURCE_ROOTS."]})
    if not os.path.isfile(path):
        raise Invalid({"source_file_path": ["There is no such file."]})


def find_source(path: str, roots: Iterable[Path]) -> str:
    """The file to serve, with symbolic links resolved. Raises NotFound when it is gone or no longer under a root."""
    if not _inside(path, roots) or not os.path.isfile(path):
        raise NotFound("The source file was not found; it may have been moved or deleted since the job was created.")
    return os.path.realpath(path)


def _inside(path: str, roots: Iterable[Path]) -> bool:
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)
