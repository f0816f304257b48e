"""PDF: what it is by pdfium, its text by markitdown or, of long ones, by pdfium page by page; scans by OCR."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pypdfium2  # type: ignore[import-untyped]

from bridge_worker.handlers import ocr
from bridge_worker.job import Job, PermanentError

log = logging.getLogger(__name__)
LONG = 100  # pages; beyond it layout (tables, columns) is not worth its time
OCR_PAGES = 500  # at most, of a scan
OCR_SCALE = 200 / 72  # 200 dots an inch
OCR_PIXELS = 40_000_000  # of a page: a larger one is made smaller


def convert(job: Job, path: Path, name: str, markdown: Any) -> tuple[str, dict[str, Any], list[str]]:
    """Return text, metadata and warnings; `markdown` is a function that converts a short one. Raises PermanentError."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise PermanentError(f"{name}: the PDF is protected by a password; submit it without one") from error
        raise PermanentError(f"{name}: the PDF is damaged or cut off; make it anew and submit it again") from error
    try:
        pages = len(document)
        metadata: dict[str, Any] = {"format": "markdown", "pages": pages}
        text = ""
        if pages <= LONG:
            try:
                text = markdown()
            except PermanentError:
                log.info("%s: converted page by page, without layout", name)
        if not text.strip():
            text = _text(job, document)
        if text.strip():
            return text, metadata, []
        return _scanned(job, document, path.parent, metadata)
    finally:
        document.close()


def _text(job: Job, document: Any) -> str:
    found = []
    for number in range(len(document)):
        job.raise_if_cancelled()
        try:
            page = document[number]
            found.append(page.get_textpage().get_text_bounded())
            page.close()
        except pypdfium2.PdfiumError:
            found.append("")  # one page that cannot be read does not cost the others
        if number % 50 == 0:
            job.progress(number / len(document), f"page {number + 1} of {len(document)}")
    return "\n\n".join(part for part in found if part.strip())


def _scanned(job: Job, document: Any, place: Path, metadata: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    if not ocr.installed():
        return "", metadata, ["The PDF holds no text: it may be a scan. This worker has no OCR (tesseract)."]
    pages = min(len(document), OCR_PAGES)
    found = []
    for number in range(pages):
        job.raise_if_cancelled()
        job.progress(number / pages, f"OCR of page {number + 1} of {pages}")
        page = document[number]
        width, height = page.get_size()
        scale = min(OCR_SCALE, (OCR_PIXELS / max(1.0, width * height)) ** 0.5)
        picture = place / "page.png"
        page.render(scale=scale).to_pil().save(picture)
        found.append(ocr.read(job, picture))
        page.close()
    warnings = ["The PDF holds no text of its own: this one was read by OCR and may have mistakes."]
    if pages < len(document):
        warnings.append(f"Only the first {pages} of {len(document)} pages were read.")
    text = "\n\n".join(found)
    if not text.strip():
        warnings = ["The PDF holds no text, and OCR found none on its pages."]
    return text, {**metadata, "ocr": True}, warnings
