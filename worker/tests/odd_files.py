"""Odd files, each with what its owner would expect: made here, so that none needs a licence or room in the repository.

`FILES` maps a name to (content type, bytes, outcome, a part of what is said). Outcomes: `text`: converted, the part is
in the text; `warned`: converted, the part is in a warning; `refused`: it fails for good, the part is in the message.
"""

from __future__ import annotations

import datetime
import json
import zipfile

from odd_material import (
    DOCX,
    FILES,
    HTML,
    NOISE,
    PDF,
    RUSSIAN,
    SAMPLES,
    UMLAUTS,
    add,
    bomb,
    docx_with,
    ole,
    pdf,
    slides,
    spreadsheet,
    zipped,
)
from odd_media import media, pictures

__all__ = ["FILES"]


def _texts() -> None:
    late = "a" * 70_000 + UMLAUTS
    add("late-umlauts.txt", "document", late.encode(), "text", "Köln")
    add("late-latin1.txt", "document", late.encode("latin-1"), "text", "Köln")
    add("very-late.md", "document", (b"# x\n" * 500_000) + "ß".encode(), "text", "ß")
    add("latin1.txt", "document", UMLAUTS.encode("latin-1"), "text", "Größe über")
    add("latin1-lines.txt", "document", (UMLAUTS.replace(";", "\n") * 3).encode("latin-1"), "text", "Grüße aus Köln,")
    add("one-umlaut.txt", "document", "nur ein ä".encode("latin-1"), "text", "nur ein ä")
    add("latin1-warned.txt", "document", UMLAUTS.encode("latin-1") + b" ", "warned", "encoding is not declared")
    add("cp1252.txt", "document", "“quoted” – costs 5 €".encode("cp1252"), "text", "€")
    add("russian-utf8.txt", "document", RUSSIAN.encode(), "text", "булок")
    add("russian-cp1251.txt", "document", (RUSSIAN * 20).encode("cp1251"), "text", "булок")
    add("russian-koi8.txt", "document", (RUSSIAN * 20).encode("koi8-r"), "text", "булок")
    add(
        "japanese-sjis.txt",
        "document",
        ("これは日本語の文章です。橋を渡る。" * 20).encode("shift_jis"),
        "text",
        "日本語",
    )
    add("chinese-gb.txt", "document", ("这是一个中文句子,用于测试编码。" * 20).encode("gb18030"), "text", "中文")
    add("utf8-mark.txt", "document", b"\xef\xbb\xbf" + UMLAUTS.encode(), "text", "Grüße")
    add("utf16-mark.txt", "document", UMLAUTS.encode("utf-16"), "text", "Grüße")
    add("utf16-be-mark.txt", "document", b"\xfe\xff" + UMLAUTS.encode("utf-16-be"), "text", "Grüße")
    add("utf16-no-mark.txt", "document", UMLAUTS.encode("utf-16-le"), "text", "Grüße")
    add("utf16-be-no-mark.txt", "document", UMLAUTS.encode("utf-16-be"), "text", "Grüße")
    add("utf32.txt", "document", UMLAUTS.encode("utf-32"), "text", "Grüße")
    add("cut-in-a-character.txt", "document", (UMLAUTS * 40 + "ö").encode()[:-1], "text", "Köln")
    add("one-nul.txt", "document", b"before\0after " + b"x" * 5000, "text", "beforeafter")
    add("escape-codes.log", "document", b"\x1b[31mred\x1b[0m text of a log\n" * 50, "text", "red")
    add("form-feeds.txt", "document", b"page 1\fpage 2\fpage 3", "text", "page 2")
    add("old-mac.txt", "document", b"one\rtwo\rthree", "text", "two")
    add("one-byte.txt", "document", b"x", "text", "x")
    add("only-spaces.txt", "document", b" \n\t \n" * 10, "warned", "No text")
    add("only-newline.txt", "document", b"\n", "warned", "No text")
    add("one-long-line.txt", "document", b"word " * 400_000, "text", "word")
    add("no-suffix", "document", b"just a note", "text", "just a note")
    add("wrong-suffix-text.pdf", "document", b"I am a text, whatever my name says", "text", "I am a text")
    add("wrong-suffix-html.txt", "document", b"<html><body>shown as it is</body></html>", "text", "<body>")
    add("two.suffixes.tar.txt", "document", b"still a text", "text", "still")
    add("emoji.txt", "document", "bridge 🌉 and family 👩‍👩‍👧".encode(), "text", "🌉")
    add("right-to-left.txt", "document", "שלום עולם".encode(), "text", "שלום")
    add("too-large.txt", "document", b"x" * (33 << 20), "refused", "split it")
    add("table.csv", "document", "name,größe\nKöln,42\n".encode(), "text", "| Köln | 42 |")
    add("latin1.csv", "document", ("name,größe\n" + "Köln,42\n" * 30).encode("latin-1"), "text", "| Köln | 42 |")
    add("late.csv", "document", ("a,b\n" + "1,2\n" * 30_000 + "ß,ü\n").encode(), "text", "| ß | ü |")
    add("ragged.csv", "document", b"a,b\n1\n1,2,3\n", "text", "| a | b |")
    add("quoted.csv", "document", b'a,b\n"x, y","z\nz"\n', "text", "x, y")
    add("unclosed-quote.csv", "document", b'a,b\n"never closed,1\n2,3\n', "text", "never closed")
    add("huge-field.csv", "document", b"a,b\n" + b"x" * 200_000 + b",1\n", "text", "xxx")
    add("controls.txt", "document", b"\xff" + bytes(range(1, 9)) * 50, "refused", "control characters")
    add("nulls.csv", "document", b"a,b\n" + b"1,\0\n" * 3000, "refused", "not a document")
    add("data.json", "document", json.dumps({"city": "Köln"}, ensure_ascii=False).encode(), "text", "Köln")
    add("broken.json", "document", b'{"city": "K', "text", '"city"')
    add("deep.json", "document", b"[" * 100_000 + b"]" * 100_000, "text", "[[[")
    add("book.ipynb", "document", json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Title of it"]}],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode(), "text", "Title of it")  # fmt: skip
    add("broken.ipynb", "document", b'{"cells": [', "warned", "plain text")


def _markup() -> None:
    add("notes.html", "document", (SAMPLES / "notes.html").read_bytes(), "text", "* first point")
    add("page.html", "document", HTML + b"<h1>Heading</h1><p>text</p>", "text", "# Heading")
    add("deep.html", "document", b"<div>" * 20_000 + b"deep inside", "text", "deep inside")
    add("deep-page.html", "web", b"<html><div>" * 5_000 + b"deep inside", "text", "deep inside")
    add("latin1.html", "document", b"<html><meta charset=iso-8859-1><p>K\xf6ln", "text", "Köln")
    add("wrong-charset.html", "document", "<html><meta charset=nonsense><p>Köln".encode(), "text", "Köln")
    many = 1_000_000
    declared = b"<html><meta charset=punycode><p>xn--"
    add("charset-of-python.html", "web", lambda: declared + b"a9" * many + b"-" + b"ka9" * many, "text", "ka9ka9")
    add("scripts.html", "web", HTML + b"<script>steal()</script><p>what is read</p>", "text", "what is read")
    add("titled.html", "web", b"<html><head><title>Its title</title><meta name=description content=it></head><p>kept",
        "text", "kept")  # fmt: skip
    add("large.html", "web", lambda: HTML + b"x" * (32 << 20), "refused", "split it")
    add("nulls.html", "web", HTML + bytes(5000) + b"x" * 9000, "refused", "NUL")
    add("only-scripts.html", "web", HTML + b"<script>render()</script>", "warned", "filled by scripts")
    add("empty-page.html", "web", b"<html></html>", "warned", "no text")
    add("utf16.html", "web", "<html><body><p>Köln</p>".encode("utf-16"), "text", "Köln")
    add("page-latin1.html", "web", b'<html><meta charset="iso-8859-1"><body><p>K\xf6ln</p>', "text", "Köln")
    add("broken-tags.html", "web", b"<html><body><p>one<p>two</div></span><b>three", "text", "three")
    add("not-a-page.html", "web", b"no tag anywhere", "text", "no tag")
    add("pdf-as-page.html", "web", PDF, "text", "42")
    add("references.html", "web", HTML + b'<img src="http://127.0.0.1:9/x"><iframe src="file:///etc/passwd"></iframe>kept',
        "text", "kept")  # fmt: skip
    entities = (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "'
        + b"ha" * 50
        + b'">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
        + b"]><rss><channel>&j;</channel></rss>"
    )
    add("billion-laughs.rss", "document", entities, "warned", "plain text")
    outside = (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><rss><channel>&e;</channel></rss>'
    )
    add("outside-entity.rss", "document", outside, "warned", "plain text")
    add("feed.rss", "document", b'<?xml version="1.0"?><rss version="2.0"><channel><title>News of it</title><item>'
        b"<title>One</title></item></channel></rss>", "text", "News of it")  # fmt: skip
    add(
        "data.xml",
        "document",
        "<?xml version='1.0' encoding='iso-8859-1'?><a>Köln</a>".encode("latin-1"),
        "text",
        "Köln",
    )


def _office() -> None:
    add("empty.pdf", "document", b"", "refused", "0 bytes")
    add("report.PDF", "document", PDF, "text", "one number: 42")
    add("x.pdf", "document", b"\0\1\2" * 100, "refused", "")
    add("junk-first.pdf", "document", b"junk\n" + PDF, "text", "42")
    add("cut.pdf", "document", PDF[:700], "refused", "damaged or cut off")
    add("only-its-head.pdf", "document", b"%PDF-1.7\n", "refused", "damaged or cut off")
    add("noise.pdf", "document", b"%PDF-1.4\n" + NOISE, "refused", "damaged or cut off")
    add("no-xref.pdf", "document", PDF[: PDF.index(b"xref")], "refused", "damaged or cut off")
    add("blank.pdf", "document", pdf(1), "warned", "no text")
    add("no-pages.pdf", "document", pdf(0), "refused", "damaged")
    add("locked.pdf", "document", pdf(1, "secret", extra=b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <%s> /U <%s> >>"
        % (b"41" * 32, b"42" * 32), trailer=b"/Encrypt 6 0 R /ID [<00><00>]"), "refused", "password")  # fmt: skip
    add("ten-thousand-pages.pdf", "document", lambda: pdf(10_000, "one of many"), "text", "one of many")
    add("150-pages.pdf", "document", pdf(150, "page of a book"), "text", "page of a book")
    add("pdf-as.docx", "document", PDF, "text", "42")
    add("minutes.docx", "document", DOCX, "text", "| audio | 1 |")
    add("docx-as.pdf", "document", DOCX, "text", "| audio | 1 |")
    add("docx-without-suffix", "document", DOCX, "text", "| audio | 1 |")
    add("cut.docx", "document", DOCX[: len(DOCX) // 2], "refused", "cut off")
    add("no-document.docx", "document", zipped({"word/other.xml": b"<x/>"}), "refused", "cannot be read as DOCX")
    add("broken-xml.docx", "document", docx_with(lambda n, d: d[:200] if n == "word/document.xml" else d), "refused",
        "cannot be read as DOCX")  # fmt: skip

    def bombed(name: str, data: bytes) -> bytes:
        return data.replace(b"</w:body>", b"<w:p/>" * 10 + b"</w:body>") if name == "word/document.xml" else data

    add("changed.docx", "document", docx_with(bombed), "text", "| audio | 1 |")
    add("bomb.docx", "document", bomb, "refused", "more than is unpacked")
    many = {f"m{n}": b"" for n in range(20_001)}
    add("many-members.zip", "document", lambda: zipped(many, zipfile.ZIP_STORED), "refused", "more than is unpacked")
    add("archive.zip", "document", zipped({"a.txt": b"inside"}), "refused", "unpack it")
    add("empty-archive.zip", "document", zipped({}), "refused", "unpack it")
    locked = bytearray(zipped({"word/document.xml": b"<x/>"}))
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    add("locked.docx", "document", bytes(locked), "refused", "password")
    add("slip.zip", "document", zipped({"../../etc/evil": b"x"}), "refused", "unpack it")
    add(
        "text.odt",
        "document",
        zipped({"mimetype": b"application/vnd.oasis.opendocument.text"}),
        "refused",
        "OpenDocument",
    )
    add("book.xlsx", "document", lambda: spreadsheet(), "text", "Köln")
    add(
        "far-cells.xlsx",
        "document",
        lambda: spreadsheet(A1048576="last", XFD3="aside"),
        "text",
        "| Köln | 42 |  |\n|  |  | aside |\n| last",
    )
    add(
        "odd-cells.xlsx",
        "document",
        lambda: spreadsheet(A3="a|b\nc", B3=datetime.date(2026, 1, 2), A4=True, B4=0.5),
        "text",
        r"| a\|b c | 2026-01-02 |\n| True | 0.5 |".replace(r"\n", "\n"),
    )
    add("blank.xlsx", "document", lambda: spreadsheet(A1=None, B1=None, A2=None, B2=None), "warned", "No text")
    add("cut.xlsx", "document", lambda: spreadsheet()[:2000], "refused", "cut off")
    add("no-book.xlsx", "document", zipped({"xl/x.xml": b"<x/>"}), "refused", "cannot be read as XLSX")
    add("show.pptx", "document", slides, "text", "Slide about bridges")
    add("no-show.pptx", "document", zipped({"ppt/x.xml": b"<x/>"}), "refused", "cannot be read as PPTX")
    add("broken.epub", "document", zipped({"mimetype": b"application/epub+zip"}), "refused", "cannot be read as EPUB")
    add("locked.xlsx", "document", ole("EncryptedPackage"), "refused", "password")
    add("mail.msg", "document", ole("__properties_version1.0"), "text", "Email Message")
    add("broken.xls", "document", ole("Workbook"), "refused", "cannot be read as XLS")
    add("letter.doc", "document", ole("WordDocument"), "refused", "save it as DOCX")
    bad = pdf(150, "page of a book").replace(b" 10 0 R ", b" 03 0 R ", 1)
    add("one-bad-page.pdf", "document", bad, "text", "page of a book")
    add("old.doc", "document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), "refused", "old Office file")
    add("cut.xls", "document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "refused", "cut off")
    add("letter.rtf", "document", b"{\\rtf1 hello}", "refused", "RTF")
    add("program", "document", b"\x7fELF" + NOISE, "refused", "a program")
    add("program.txt", "document", b"MZ" + NOISE, "refused", "a program")
    add("noise.txt", "document", NOISE, "refused", "not a document")
    add("zeros.txt", "document", bytes(10_000), "refused", "NUL")
    add("noise", "document", NOISE[:300], "refused", "not a document")
    add("packed.gz", "document", b"\x1f\x8b\x08" + NOISE, "refused", "gzip")
    add("sound-as.pdf", "document", b"ID3" + NOISE, "refused", "sound")


for _make in (_texts, _markup, _office, pictures, media):
    _make()
