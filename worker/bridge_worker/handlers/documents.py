"""Documents to Markdown: PDF, Office, mail, EPUB, web pages, tables, plain text, and pictures by OCR.

What a file is, is told by its first bytes, and by its suffix where these do not tell.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

# markitdown brings onnxruntime, which otherwise reports to its maker from every worker (and leaves a file in TMPDIR).
# It reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import olefile  # type: ignore[import-untyped]
from markitdown import StreamInfo, converters

from bridge_worker.handlers import decoding, ocr, pdf, sheets
from bridge_worker.handlers.said import name_of, refuse_empty, text_result
from bridge_worker.job import Job, PermanentError, Result

log = logging.getLogger(__name__)
PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")
BINARIES = {
    b"{\\rtf": "an RTF file", b"\x7fELF": "a program", b"MZ": "a program", b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-Zip archive", b"Rar!": "a RAR archive", b"SQLite format": "a database", b"fLaC": "sound",
    b"OggS": "sound", b"ID3": "sound", b"\x1aE\xdf\xa3": "a video",
}  # fmt: skip
#: No room on the disk, too many descriptors: what a library says so of is this process' trouble.
NOT_THE_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
TEXT_LIMIT = 32 * 2**20  # bytes of a plain text: its result must fit into a request
UNPACKED_LIMIT = 2**30  # bytes of a ZIP's members together
MEMBERS_LIMIT = 20_000
_OFFICE = {"word/": ".docx", "ppt/": ".pptx", "xl/": ".xlsx"}
_OPEN = {"application/epub+zip": ".epub"}
_CONVERTERS: dict[str, Any] = {
    ".pdf": converters.PdfConverter, ".docx": converters.DocxConverter, ".pptx": converters.PptxConverter,
    ".xls": converters.XlsConverter, ".msg": converters.OutlookMsgConverter,
    ".epub": converters.EpubConverter, ".csv": converters.CsvConverter, ".html": converters.HtmlConverter,
    ".htm": converters.HtmlConverter, ".xhtml": converters.HtmlConverter, ".ipynb": converters.IpynbConverter,
    ".xml": converters.RssConverter, ".rss": converters.RssConverter, ".atom": converters.RssConverter,
}  # fmt: skip


def handle(job: Job, path: Path) -> Result:
    """Convert the file. Raises PermanentError for one that cannot be read; the text says why and what to do."""
    refuse_empty(job, path)
    name = name_of(job, path)
    job.progress(0.1, "reading")
    with path.open("rb") as file:
        head = file.read(4096)
    metadata: dict[str, Any] = {"format": "markdown"}
    warnings: list[str] = []
    if b"%PDF-" in head[:1024]:
        text, metadata, warnings = pdf.convert(job, path, name, lambda: _markdown(path, ".pdf", name)[0])
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        text, title = _markdown(path, _kind_of_zip(path, name), name)
        metadata |= {"title": title} if title else {}
    elif head.startswith(olefile.MAGIC):
        text, title = _markdown(path, _kind_of_ole(path, name), name)
        metadata |= {"title": title} if title else {}
    elif head.startswith(PICTURES) or head[8:12] == b"WEBP":
        text, metadata, warnings = _picture(job, path, name)
    else:
        text, metadata, warnings = _plain(path, head, name)
    return text_result("documents", text, metadata, warnings)


def _markdown(source: Path | bytes, suffix: str, name: str) -> tuple[str, str | None]:
    """Convert by markitdown; return text and title."""
    stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    charset = "utf-8" if isinstance(source, bytes) else None
    with stream:
        try:
            if suffix == ".xlsx":
                return sheets.convert(stream), None
            info = StreamInfo(extension=suffix, charset=charset)
            converted = _CONVERTERS[suffix]().convert(stream, info)
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NOT_THE_FILE:
                raise
            log.info("%s: %s", name, str(error)[:2000])
            what = suffix.lstrip(".").upper()
            raise PermanentError(
                f"{name}: cannot be read as {what}: it is damaged, or not what its name says; save it anew as {what}"
                " or PDF and submit it again"
            ) from error
    return converted.markdown, converted.title


def _kind_of_zip(path: Path, name: str) -> str:
    """Return the suffix of what the ZIP is; refuse bombs, and archives that nobody meant as a document."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if any(member.flag_bits & 1 for member in members):
                raise PermanentError(f"{name}: the archive is protected by a password; submit it without one")
            if size > UNPACKED_LIMIT or len(members) > MEMBERS_LIMIT:
                what = f"{len(members)} members of {size / 2**20:.0f} MiB together"
                raise PermanentError(f"{name}: it holds {what}, more than is unpacked; split it")
            names = [member.filename for member in members]
            kind = archive.read("mimetype").decode("ascii", "replace").strip() if "mimetype" in names else ""
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError, ValueError) as error:
        raise PermanentError(f"{name}: damaged or cut off (a ZIP that cannot be opened); submit it again") from error
    for folder, suffix in _OFFICE.items():
        if any(member.startswith(folder) for member in names):
            return suffix
    if kind.startswith("application/vnd.oasis.opendocument"):
        raise PermanentError(f"{name}: OpenDocument files are not read; save it as DOCX, XLSX, PPTX or PDF")
    if kind in _OPEN:
        return _OPEN[kind]
    raise PermanentError(f"{name}: an archive; unpack it and submit the files one by one")


def _kind_of_ole(path: Path, name: str) -> str:
    """Return the suffix of an old Office file; the first bytes are the same for all of them."""
    try:
        with olefile.OleFileIO(path) as ole:
            streams = {entry[0] for entry in ole.listdir()}
    except Exception as error:  # whatever it stumbles over
        raise PermanentError(f"{name}: damaged or cut off (an old Office file); submit it again") from error
    if "EncryptedPackage" in streams:
        raise PermanentError(f"{name}: protected by a password; submit it without one")
    if "__properties_version1.0" in streams:
        return ".msg"
    if streams & {"Workbook", "Book"}:
        return ".xls"
    raise PermanentError(f"{name}: an old Office file; save it as DOCX, PPTX or PDF and submit it again")


def _picture(job: Job, path: Path, name: str) -> tuple[str, dict[str, Any], list[str]]:
    if not ocr.installed():
        raise PermanentError(f"{name}: a picture, and this worker has no OCR; install tesseract on it")
    try:
        text = ocr.read(job, path)
    except PermanentError as error:
        raise PermanentError(f"{name}: {error}; save it as PNG and submit it again") from error
    warnings = ["The text was read by OCR and may have mistakes."] if text.strip() else ["OCR found no text."]
    return text, {"format": "text", "ocr": True}, warnings


def _plain(path: Path, head: bytes, name: str) -> tuple[str, dict[str, Any], list[str]]:
    """Read a text of any encoding; what is no text is refused by what it seems to be."""
    for start, what in BINARIES.items():
        if head.startswith(start):
            raise PermanentError(f"{name}: {what}, not a document that can be read")
    if (size := path.stat().st_size) > TEXT_LIMIT:
        raise PermanentError(f"{name}: a text of {size} bytes, more than {TEXT_LIMIT}; split it")
    suffix = path.suffix.lower()
    html = suffix in (".html", ".htm", ".xhtml") or (not suffix and b"<html" in head.lower())
    try:
        text, encoding, guessed = decoding.decode(path.read_bytes(), declared=html or suffix in _CONVERTERS)
    except decoding.NotText as error:
        raise PermanentError(f"{name}: not a document that can be read ({error}); submit it as PDF or DOCX") from error
    warnings = [f"The encoding is not declared; {encoding} was guessed."] if guessed else []
    if not (html or suffix in _CONVERTERS):
        return text, {"format": "text", "encoding": encoding}, warnings
    metadata: dict[str, Any] = {"format": "markdown", "encoding": encoding}
    try:
        converted, title = _markdown(text.encode("utf-8", "replace"), ".html" if html else suffix, name)
        metadata |= {"title": title} if title else {}
    except PermanentError:  # the form is not needed for the text
        converted, warnings = text, [*warnings, f"Not well-formed {suffix.lstrip('.')}: taken as plain text."]
        metadata["format"] = "text"
    return converted, metadata, warnings
