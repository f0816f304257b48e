"""A stored web page to Markdown: its text without scripts, styles, forms and navigation. For content type `web`."""

from __future__ import annotations

from pathlib import Path

from bs4 import BeautifulSoup
from markdownify import markdownify

from bridge_worker.handlers import decoding, documents
from bridge_worker.handlers.said import name_of, refuse_empty, text_result
from bridge_worker.job import Job, PermanentError, Result

NOT_TEXT = ("script", "style", "noscript", "template", "svg", "iframe", "object", "form", "nav", "aside", "head")
LIMIT = 32 * 2**20  # bytes of a page


def handle(job: Job, path: Path) -> Result:
    """Convert the page; nothing that it names is fetched. What is no page is left to the handler of documents."""
    refuse_empty(job, path)
    name = name_of(job, path)
    with path.open("rb") as file:
        head = file.read(4096)
    other = head.startswith((b"%PDF-", b"PK\x03\x04", b"<?xml version")) and b"<html" not in head.lower()
    if other or b"<" not in head.replace(b"\0", b""):
        return documents.handle(job, path)
    if path.stat().st_size > LIMIT:
        raise PermanentError(f"{name}: a page of more than {LIMIT} bytes; split it")
    try:
        text, encoding, guessed = decoding.decode(path.read_bytes(), declared=True)
    except decoding.NotText:
        return documents.handle(job, path)
    page = BeautifulSoup(text, "html.parser")
    metadata: dict[str, object] = {"format": "markdown", "encoding": encoding}
    if page.title is not None and (title := page.title.get_text(" ", strip=True)):
        metadata["title"] = title[:1000]
    described = page.find("meta", attrs={"name": "description"})
    if described is not None and described.get("content"):
        metadata["description"] = str(described.get("content"))[:2000]
    for element in page(NOT_TEXT):
        element.decompose()
    main = page.find("main") or page.find("article") or page.body or page
    if len(main.get_text(strip=True)) < 200:  # a page whose main part is elsewhere
        main = page.body or page
    warnings = [f"The encoding is not declared; {encoding} was guessed."] if guessed else []
    try:
        content = markdownify(str(main), heading_style="ATX", strip=["img"])
    except RecursionError:  # its form is not needed for the text
        content = "\n".join(main.stripped_strings)
        warnings.append("The page is nested too deeply for Markdown: taken as plain text.")
    if not content.strip():
        warnings.append("The page holds no text: it may be filled by scripts when it is shown.")
    return text_result("web", content, metadata, warnings)
