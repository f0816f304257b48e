"""Bytes to text, whatever encoding they are in: all of the file is looked at, not only its beginning."""

from __future__ import annotations

import codecs
import contextlib
import re

from charset_normalizer import from_bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"""<(?:meta[^>]{0,200}charset=|\?xml[^>]{0,200}encoding=)["']?\s*([A-Za-z0-9._-]{2,40})""", re.I
)
#: Codecs of Python that are no file's encoding. The time of the first grows with the square of the text.
_NO_ENCODINGS = {"punycode", "idna", "unicode_escape", "raw_unicode_escape", "charmap", "undefined"}
SAMPLE = 2**20  # bytes from which an encoding is guessed
#: What is guessed at all. Others (DOS, Mac) look alike in short texts, and are rare.
GUESSED = ["cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030",
           "big5", "cp949"]  # fmt: skip


class NotText(ValueError):
    """Bytes that are no text in any encoding."""


def decode(data: bytes, *, declared: bool = False) -> tuple[str, str, bool]:
    """Return the text, its encoding, and whether that was guessed. Raises NotText.

    `declared`: also believe what HTML or XML says of itself in its first 4 KiB.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace").lstrip("\ufeff"), encoding, False
    if (name := _without_mark(data)) is not None:
        return data.decode(name, "replace"), name, True
    if data.count(0) > len(data) // 1000:
        raise NotText("it holds NUL bytes")
    if declared and (match := _DECLARED.search(data[:4096])):
        with contextlib.suppress(LookupError, UnicodeError):
            name = codecs.lookup(match[1].decode()).name
            if name.replace("-", "_") not in _NO_ENCODINGS:
                return data.decode(name), match[1].decode().lower(), False
    try:
        return data.decode("utf-8"), "utf-8", False
    except UnicodeDecodeError as error:
        if error.start > 0.99 * len(data) and len(data) - error.start < 4:  # cut off within a character
            return data.decode("utf-8", "ignore"), "utf-8", False
        at = max(0, error.start - SAMPLE // 2)
    controls = sum(data[:SAMPLE].count(byte) for byte in (*range(1, 9), *range(14, 27), *range(28, 32)))
    if controls > len(data[:SAMPLE]) // 20:
        raise NotText("it is full of control characters")
    sample = data[at : at + SAMPLE]
    # What is written from left to right in Western Europe is by far the most frequent, and short texts guess badly.
    best = (
        from_bytes(sample, cp_isolation=GUESSED).best() if sum(byte >= 0x80 for byte in sample[:65536]) > 20 else None
    )
    encoding = best.encoding if best is not None else "cp1252"
    return data.decode(encoding, "replace"), encoding, True


def _without_mark(data: bytes) -> str | None:
    """Return the name of UTF-16 without a mark, told by where its NULs are."""
    head = data[:4096]
    if len(head) < 4 or b"\0" not in head:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > len(head) // 3 and even < len(head) // 50:
        return "utf-16-le"
    return "utf-16-be" if even > len(head) // 3 and odd < len(head) // 50 else None
