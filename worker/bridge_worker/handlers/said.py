"""What the reference handlers say: messages that name the file and what to do, warnings, and the result's form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bridge_worker.job import Job, PermanentError, Result

# Form feeds stand between pages; other control characters are not text.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")


def name_of(job: Job, path: Path) -> str:
    """Return the file's name as its owner knows it, as far as that is known."""
    return job.source_name or path.name


def refuse_empty(job: Job, path: Path) -> None:
    """Raise PermanentError for a file without a byte."""
    if path.stat().st_size == 0:
        raise PermanentError(f"{name_of(job, path)}: the file is empty (0 bytes); submit it again when it is complete")


def text_result(handler: str, text: str, metadata: dict[str, Any], warnings: list[str]) -> Result:
    """Return a Result of clean text; one without text has a warning, whatever the reason."""
    text = CONTROL.sub("", text).replace("\f", "\n").strip()
    metadata = {"handler": handler, **metadata, "characters": len(text)}
    if not text and not warnings:
        warnings = ["No text was found in the file."]
    if warnings:
        metadata["warnings"] = warnings
    return Result(text, metadata)
