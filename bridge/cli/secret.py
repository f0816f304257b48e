"""A secret that a command has made up: only a terminal shows it, because other output ends up in logs."""

from __future__ import annotations

import sys
from pathlib import Path

from bridge.private_files import private_directory, write_private


def shown_or_kept(secret: str, data_dir: Path, name: str) -> str:
    """Return what to print: the secret itself on a terminal, else the file of mode 0600 that it was written to."""
    if sys.stdout.isatty():
        return secret
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(write_private(private_directory(data_dir / "secrets") / name, secret + "\n"))
