"""The dashboard's scripts and styles: few files, read once, with hashes in their addresses for browsers to cache."""

import hashlib
import mimetypes
from functools import cache
from pathlib import Path

from flask import Response
from werkzeug.exceptions import NotFound

HERE = Path(__file__).parent / "static"


@cache
def files() -> dict[str, bytes]:
    """Return the files that are served: name → content."""
    return {path.name: path.read_bytes() for path in sorted(HERE.iterdir()) if path.is_file()}


@cache
def versioned(name: str) -> str:
    """Return the address of a file; it changes with the content."""
    return f"/ui/static/{name}?v={hashlib.sha256(files()[name]).hexdigest()[:12]}"


def serve(name: str) -> Response:
    """Return the file with this name. Raises 404."""
    if name not in files():
        raise NotFound
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    response = Response(files()[name], content_type=f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response
