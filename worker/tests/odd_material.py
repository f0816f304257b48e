"""What odd files are made of: the samples, and makers of PDF, ZIP, sound, pictures; `FILES` collects the files."""

from __future__ import annotations

import io
import random
import struct
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "samples"
PDF, DOCX = (SAMPLES / "report.pdf").read_bytes(), (SAMPLES / "minutes.docx").read_bytes()
WAV, MP4, HTML = (SAMPLES / "speech.wav").read_bytes(), (SAMPLES / "clip.mp4").read_bytes(), b"<html><body>"
NOISE = random.Random(3).randbytes(50_000)
UMLAUTS = "Grüße aus Köln, Mühlheim und Düsseldorf; schöne Größe über alle Maßen. "
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "
Odd = tuple[str, Callable[[], bytes], str, str]
FILES: dict[str, Odd] = {}


def add(name: str, kind: str, data: bytes | Callable[[], bytes], outcome: str, part: str) -> None:
    """Add one file; one that takes long to make is given as what makes it, and made by its test alone."""
    assert name not in FILES
    FILES[name] = (kind, data if callable(data) else lambda: data, outcome, part)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def bomb() -> bytes:
    """Return a DOCX that names the same 100 MiB eleven times."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("word/document.xml", b"")
        archive.writestr("word/large", bytes(100 << 20))
        archive.filelist += archive.filelist[-1:] * 10
    return file.getvalue()


def docx_with(change: Callable[[str, bytes], bytes]) -> bytes:
    """Return the sample DOCX with members changed."""
    with zipfile.ZipFile(io.BytesIO(DOCX)) as archive:
        return zipped({name: change(name, archive.read(name)) for name in archive.namelist()})


def pdf(pages: int, text: str = "", *, extra: bytes = b"", trailer: bytes = b"") -> bytes:
    """Return a PDF of so many pages, each with `text` (none: an empty page)."""
    stream = f"BT /F1 11 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    kids = b" ".join(b"%d 0 R" % (4 + n) for n in range(pages))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, pages),
               b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)]  # fmt: skip
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 3 0 R /Resources << /Font << /F1 %d 0 R >> >> >>"  # noqa: E501
    objects += [page % (4 + pages)] * pages + [
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        extra or b"null",
    ]
    data, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(data) + b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        start,
    )


def ole(stream: str) -> bytes:
    """Return an old Office file (OLE) with one empty stream."""
    end, free = 0xFFFFFFFE, 0xFFFFFFFF

    def entry(name: str, kind: int, child: int) -> bytes:
        written = name.encode("utf-16-le")
        return struct.pack("<64sHBB3I36xIQ", written, len(written) + 2, kind, 1, free, free, child, end, 0)

    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    data += struct.pack("<5H6x9I", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, end, 0, end, 0)
    data += struct.pack("<109I", 0, *[free] * 108) + struct.pack("<128I", 0xFFFFFFFD, end, *[free] * 126)
    return data + entry("Root Entry", 5, 1) + entry(stream, 2, free) + bytes(256)


def wav(samples: bytes, channels: int = 1, rate: int = 16000, width: int = 2) -> bytes:
    """Return a WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels), sound.setsampwidth(width), sound.setframerate(rate)
        sound.writeframes(samples)
    return file.getvalue()


def spreadsheet(**cells: object) -> bytes:
    """Return an XLSX with two sheets, and these cells in the first."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["city", "größe"])
    book.active.append(["Köln", 42])
    for place, value in cells.items():
        book.active[place] = value
    book.create_sheet("empty")
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def slides() -> bytes:
    """Return a PPTX with one slide."""
    import pptx

    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Slide about bridges"
    file = io.BytesIO()
    show.save(file)
    return file.getvalue()


def picture(kind: str, text: str = "", size: tuple[int, int] = (900, 200)) -> bytes:
    """Return a picture with a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", size, "white")
    if text:
        ImageDraw.Draw(image).text((40, 60), text, fill="black", font=ImageFont.load_default(size=60))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
