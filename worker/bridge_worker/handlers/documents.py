"""PDF, DOCX, HTML and whatever else markitdown reads, to Markdown. For content types `document` and `web`."""

from __future__ import annotations

import os
import re
from pathlib import Path

# markitdown brings onnxruntime, which otherwise reports to its maker from every worker (and leaves a file in TMPDIR).
# It reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from markitdown import FileConversionException, MarkItDown, UnsupportedFormatException

from bridge_worker.job import Job, PermanentError, Result

# The bridge refuses NUL and lone surrogates; PDFs hold them, and form feeds between pages.
UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\ud800-\udfff]")


def handle(job: Job, path: Path) -> Result:
    """Convert the file to Markdown. Raises PermanentError for a format that cannot be read."""
    job.progress(0.1, "reading")
    try:
        converted = MarkItDown(enable_plugins=False).convert_local(path)
    except (FileConversionException, UnsupportedFormatException) as error:
        raise PermanentError(f"not a document that can be read: {error}") from error
    job.progress(1.0, "read")
    text = UNSTORABLE.sub("", converted.markdown).replace("\f", "\n").strip()
    metadata = {"handler": "documents", "format": "markdown", "characters": len(text)}
    if converted.title:
        metadata["title"] = UNSTORABLE.sub("", converted.title)
    return Result(text, metadata)
