"""What a client sends: JSON and query parameters, read strictly."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import gevent
from flask import Request, request
from flask_smorest import Blueprint as SmorestBlueprint
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import Schema
from webargs import missing
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from api.access import caller, limits
from bridge import json_guard
from bridge.errors import Invalid

BODY_SECONDS = 300  # a body that takes longer to arrive is given up
LARGE_BYTES = 64 * 1024
_TOKEN = re.compile(rb'"lease_token"\s{0,8}:\s{0,8}"([!-~]{1,100}?)"')
_CHUNK = 65536


class Oversized(RequestEntityTooLarge):
    """The body is larger than BRIDGE_MAX_BODY_BYTES allows; `begun` is what was read of it."""

    def __init__(self, begun: bytes = b"") -> None:
        super().__init__()
        self.begun = begun

    def token(self, incoming: Request) -> str | None:
        """The lease_token that the body names, wherever it stands. What comes before it is read, and dropped.

        A quote inside a JSON string is escaped, so no text of a result can be taken for the field. Raises 400, 408.
        """
        window = self.begun
        with _arriving():
            while (found := _TOKEN.search(window)) is None:
                chunk = incoming.environ["wsgi.input"].read(_CHUNK)
                if not chunk:
                    return None
                window = window[-256:] + chunk
                gevent.sleep(0)  # a client that sends quickly does not keep the others waiting
        return found[1].decode()


class Unstorable(Invalid):
    """The JSON guard refused the body (bridge/json_guard.py); `token` is the lease_token that it names.

    One that cannot be a token is not the same as none: it stands as a token that nobody has.
    """

    def __init__(self, refusal: json_guard.Refused) -> None:
        super().__init__(refusal.errors)
        if not refusal.is_json:
            self.status, self.code = 400, "malformed"
        token = refusal.body.get("lease_token") if isinstance(refusal.body, dict) else None
        sound = isinstance(token, str) and re.fullmatch(r"[!-~]{1,100}", token)
        self.token = None if token is None else str(token) if sound else "unreadable"


def read_json(incoming: Request) -> Any:
    """The JSON body. Raises 400 (malformed), 408, 413, 415, and Unstorable (422)."""
    if incoming.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without a Content-Encoding.")
    if incoming.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise UnsupportedMediaType("Send the body without a Transfer-Encoding but chunked.")
    sent = bool(incoming.content_length) or "Transfer-Encoding" in incoming.headers
    if sent and not _is_json(incoming):
        raise UnsupportedMediaType("Send the body as application/json, in UTF-8.")
    raw = _read(incoming)
    if not raw:
        return missing
    try:
        return json_guard.parse(raw)
    except json_guard.NotJson as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    except json_guard.Refused as refusal:
        raise Unstorable(refusal) from None


def _read(incoming: Request) -> bytes:
    # The limit of the application is a byte higher: Werkzeug cuts a chunked body at it instead of refusing it.
    try:
        with _arriving(), _turn(incoming):
            raw = incoming.get_data()
    except RequestEntityTooLarge:
        raise Oversized from None
    if len(raw) == incoming.max_content_length:
        raise Oversized(raw)
    return raw


@contextmanager
def _arriving() -> Iterator[None]:
    """A body is read from the connection. Raises 400 where it is broken, 408 where it takes too long."""
    try:
        with gevent.Timeout(BODY_SECONDS, RequestTimeout()):
            yield
    except (ParseException, NoMoreData):
        raise BadRequest("The body is broken: its chunks are malformed, or it ended early.") from None


def _turn(incoming: Request) -> AbstractContextManager[Any]:
    """A large body is held in memory while it comes, however slowly: not any number of them at once for one key."""
    if "Transfer-Encoding" in incoming.headers or (incoming.content_length or 0) > LARGE_BYTES:
        return limits().reading(caller().key_id)
    return nullcontext()


def _is_json(incoming: Request) -> bool:
    named = incoming.mimetype == "application/json" or re.fullmatch(r"application/[a-z0-9.-]+\+json", incoming.mimetype)
    return bool(named) and incoming.mimetype_params.get("charset", "utf-8").lower() in ("utf-8", "utf8")


def no_body(incoming: Request) -> None:
    """Refuse a body where the route takes none: what it says would be overlooked, `dry_run` for one. `{}` says nothing.

    Raises 400, 408, 413, 415 as for any body, and Invalid (422).
    """
    if read_json(incoming) not in (missing, {}):
        raise Invalid({"body": ["Must be empty: this route takes no body, only query parameters where it has some."]})


class StrictParser(FlaskParser):
    """Reads JSON through the guard, and query parameters each once, unknown ones where the schema takes them."""

    DEFAULT_VALIDATION_STATUS = 422
    # webargs would drop unknown query parameters: a filter that is misspelt must not let everything through.
    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": None}

    def load_json(self, req: Request, schema: Schema) -> Any:
        return read_json(req)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        return single(req.args)


def single(parameters: MultiDict[str, str]) -> dict[str, str]:
    """Query parameters, each given once. Raises Invalid."""
    repeated: dict[str, object] = {
        name: ["Must be given once."] for name, values in parameters.lists() if len(values) > 1
    }
    nul = {name: ["Must not contain a NUL character."] for name, value in parameters.items() if "\x00" in name + value}
    if repeated or nul:
        raise Invalid({**repeated, **nul})
    return parameters.to_dict()


class Blueprint(SmorestBlueprint):
    """flask-smorest's blueprint with the strict parser."""

    ARGUMENTS_PARSER = StrictParser()


def header_text(name: str, longest: int) -> str | None:
    """A header of 1 to `longest` characters, or None where it was not sent. Raises Invalid."""
    value = request.headers.get(name)
    if value is not None and (not 1 <= len(value) <= longest or "\x00" in value):
        raise Invalid({name: [f"Must have 1 to {longest} characters."]})
    return value
