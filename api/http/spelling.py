"""One address, one spelling: what a proxy blocks by its path is not reachable under another spelling."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from flask import request
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter, Map, PathConverter

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Encoded(BaseConverter):
    def to_python(self, value: str) -> str:
        return unquote(value)


class JobId(_Encoded):
    """A job's ID in a path, whatever it looks like; not a word that is itself a route, or `Allow` would be wrong."""

    regex = r"(?!(?:batch|cancel|poll|retry|statistics)$)[^/]+"
    part_isolating = True


class ArtifactName(_Encoded):
    """The name of a file in a path: one segment of it."""


class WorkerId(_Encoded, PathConverter):
    """A worker's ID in a path: any text, line breaks and slashes included."""

    regex = "(?s:.+?)"
    part_isolating = False


def as_spelled(application: Wsgi) -> Wsgi:
    """Route by the path as it was sent, not decoded: `/%6detrics` is not `/metrics`. The converters decode."""

    def spelled(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raw = environ.get("RAW_URI", "")
        if "%" in raw:
            path = raw.partition("?")[0].partition("#")[0] if raw.startswith("/") else urlsplit(raw).path
            if "%" in path:
                environ["PATH_INFO"] = path
        return application(environ, start_response)

    return spelled


def exact(url_map: Map) -> None:
    """Keep two slashes from counting as one, and turn redirects off. Call it before routes are added."""
    url_map.merge_slashes = False
    url_map.redirect_defaults = False
    url_map.strict_slashes = False  # would redirect; see `refuse_another_slash`


def refuse_another_slash() -> None:
    """Refuse a final slash but at the bases, which answer with and without it. Raises NotFound.

    Several slashes at the beginning are refused too: Werkzeug takes them for one.
    """
    path, rule = request.environ.get("PATH_INFO", ""), request.url_rule
    if path.startswith("//") or (rule is not None and path.endswith("/") and not rule.rule.endswith("/")):
        raise NotFound
