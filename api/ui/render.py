"""Templates, and how values are shown: foreign text is escaped, bounded, and cannot reorder the text around it."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from flask import Response, g, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from api.http.parts import parts
from api.ui import session
from api.ui.static_files import versioned
from bridge.jobs.remote_sources import without_query
from bridge.outgoing.destination import receiver_of
from bridge.version import version

HERE = Path(__file__).parent
LONGEST_TEXT = 20_000  # characters of a document that a page shows
# Only our own files run, nothing is loaded from elsewhere, and no form is sent elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# Control characters, and those that reorder or hide text: shown by their codes.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def page(name: str, status: int = 200, **facts: Any) -> Response:
    """Return a page, or only the part that updates itself where htmx asks for it."""
    part = request.headers.get("HX-Request") == "true" and status == 200
    template = environment().get_template(f"parts/{name}.html" if part else f"{name}.html")
    mine = session.session() if "ui_session" in g else None
    said = None if part or mine is None else session.said()
    where = {
        "here": request.path,
        "address": request.full_path.rstrip("?"),
        "flower": parts().runtime.settings.flower_url,
    }
    text = template.render(me=mine, said=said, **where, **facts)
    return Response(text, status, content_type="text/html; charset=utf-8")


def protected(response: Response) -> Response:
    """Set the headers of every answer below /ui; cf. SAFE in api/http/fixed_headers.py."""
    response.headers["Content-Security-Policy"] = POLICY
    # `no-referrer` would make browsers hide which site a form comes from.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Vary", "Cookie, HX-Request")
    return session.after(response)


@cache
def environment() -> Environment:
    """Return the environment of the templates, each compiled once per process."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    ours = (plain, entities, document, moment, moments, ago, seconds, number)
    made.filters |= {one.__name__: one for one in ours}
    made.filters |= {"bytes": size, "source": without_query, "receiver": receiver_of}
    made.globals |= {"static": versioned, "version": version()}
    return made


def plain(value: object, most: int = 200) -> str:
    """Return foreign text for display on one line, cut to `most` characters."""
    text = str(value)
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", cut)


def entities(value: object) -> Markup:
    """Return foreign text as a field's value that is sent back unchanged: unseen characters become references."""
    return Markup(_UNSEEN.sub(lambda found: f"&#x{ord(found[0]):x};", str(escape(value))))


def document(head: tuple[str, int], is_json: bool = False) -> str:
    """Return the beginning of a document, and its size if that is cut; complete JSON is indented."""
    text, whole = head
    if is_json and whole == len(text.encode()):
        with suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    more = f"\n… of {size(whole)} in all" if whole > len(text.encode()) else ""
    return plain(text, 4 * LONGEST_TEXT) + more


def moment(value: datetime | None) -> str | Markup:
    """Return a moment in UTC, to the second."""
    if value is None:
        return "–"
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S")
    )


def moments(sentence: str) -> str:
    """Return the sentence with each moment in the format of the pages."""
    return re.sub(r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\+00:00\b", r"\1 \2 UTC", sentence)


def ago(value: datetime | None) -> str | Markup:
    """Return how long ago a moment was."""
    if value is None:
        return "–"
    past = (datetime.now(UTC) - value).total_seconds()
    told = f"{seconds(past)} ago" if past >= 0 else f"in {seconds(-past)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        value.isoformat(timespec="seconds"), value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"), told
    )


def seconds(value: float | None) -> str:
    """Return a duration in its two largest units."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} s" if value % 1 >= 0.05 else f"{value:.0f} s"
    left, parts = round(float(value)), list[str]()
    for name, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= length or (name == "s" and not parts):
            parts.append(f"{left // length} {name}")
            left %= length
    return " ".join(parts[:2])


def number(value: float | None) -> str:
    """Return a count with its digits in groups of three."""
    return "–" if value is None else f"{round(float(value)):,}".replace(",", "\u202f")


def size(value: int | None) -> str:
    """Return a number of bytes in a readable unit."""
    if value is None:
        return "–"
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= length:
            return f"{value / length:.1f} {unit}"
    return f"{value} bytes"
