"""What a client sends: JSON and query parameters, read strictly."""

import re
from collections.abc import Callable
from typing import Any

from flask import Request, g, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema
from webargs import missing
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict

from api.http.incoming import Malformed, NoJsonBody, read_body
from api.http.parts import parts
from bridge.admission import json_guard
from bridge.errors import Invalid

# Larger bodies are parsed one at a time in a thread: what takes a tenth of a second or more must not hold up other
# requests.
ASIDE_BYTES = 64 * 1024

Parse = Callable[[bytes], Any]  # raises json_guard.NotJson, json_guard.Refused


class Unstorable(Invalid):
    """The JSON guard refused the body (bridge/admission/json_guard.py); `token` is the lease_token that it names.

    A value that cannot be a token does not count as missing: it becomes a token that nobody has.
    """

    def __init__(self, refusal: json_guard.Refused) -> None:
        super().__init__(refusal.errors)
        token = refusal.body.get("lease_token") if isinstance(refusal.body, dict) else None
        sound = isinstance(token, str) and re.fullmatch(r"[!-~]{1,100}", token)
        self.token = None if token is None else str(token) if sound else "unreadable"

    @classmethod
    def of(cls, refusal: json_guard.Refused) -> "Unstorable":
        """Return the refusal as the error that HTTP clients get."""
        return cls(refusal) if refusal.is_json else NotFinite(refusal)


class NotFinite(Unstorable):
    """The body contains NaN or Infinity, so it is not JSON."""

    code = "malformed"


def read_json(incoming: Request, parse: Parse = json_guard.parse) -> Any:
    """Return the JSON body, parsed by the guard. Raises 408, TooMany, what api/http/incoming.py raises for bodies that
    are not JSON (400, 413, 415), and Unstorable (422)."""
    if incoming.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise NoJsonBody("Send the body without a Content-Encoding.")
    if incoming.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise NoJsonBody("The only supported Transfer-Encoding is chunked.")
    sent = bool(incoming.content_length) or "Transfer-Encoding" in incoming.headers
    if sent and not _is_json(incoming):
        raise NoJsonBody("Send the body as application/json, in UTF-8.")
    raw = read_body(incoming)
    if not raw:
        return missing
    try:
        g.body = _parsed(raw, parse)
    except json_guard.NotJson as error:
        raise Malformed(f"The body is not valid JSON: {error}.", raw) from None
    except json_guard.Refused as refusal:
        raise Unstorable.of(refusal) from None
    return g.body


def _parsed(raw: bytes, parse: Parse) -> Any:
    if len(raw) <= ASIDE_BYTES:
        return parse(raw)
    box: list[Any] = [raw]
    parts().aside.spawn(_parse_in, box, parse).get()
    done = box.pop()
    try:
        if isinstance(done, Exception):
            raise done
        return done
    finally:
        del done  # else the exception and this frame would keep each other, and the body, alive until a full collection


def _parse_in(box: list[Any], parse: Parse) -> None:
    """Parse what is in the box, and leave the value or the refusal there.

    gevent keeps a thread's last arguments and result until its next task, so neither may hold the body or its value.
    A refusal raised in the thread would also be logged as a crash.
    """
    try:
        box[0] = parse(box[0])
    except (json_guard.NotJson, json_guard.Refused) as error:
        box[0] = error.with_traceback(None)


def _is_json(incoming: Request) -> bool:
    named = incoming.mimetype == "application/json" or re.fullmatch(r"application/[a-z0-9.-]+\+json", incoming.mimetype)
    return bool(named) and incoming.mimetype_params.get("charset", "utf-8").lower() in ("utf-8", "utf8")


def no_body(incoming: Request) -> None:
    """Refuse a body where the route takes none: its content, `dry_run` for one, would be ignored. `{}` is accepted.

    Raises 400, 408, 413, 415 as for any body, and Invalid (422).
    """
    if read_json(incoming) not in (missing, {}):
        raise Invalid({"body": ["Must be empty: this route takes no body, only query parameters where it has some."]})


class StrictParser(FlaskParser):
    """Reads JSON through the guard and each query parameter once; leaves unknown parameters for the schema to judge."""

    DEFAULT_VALIDATION_STATUS = 422
    # webargs would drop unknown query parameters: a misspelt filter must not let everything through.
    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": None}

    def load_json(self, req: Request, schema: Schema) -> Any:
        return read_json(req)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        return single(req.args)


def single(parameters: MultiDict[str, str]) -> dict[str, str]:
    """Return the query parameters. Raises Invalid where one is given more than once, or contains NUL."""
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

    @staticmethod
    def _make_doc_response_schema(schema: Any) -> Any:
        """Return what documents an answer: the class, since each further decorator of the view copies an instance."""
        return type(schema) if isinstance(schema, Schema) else schema


def header_text(name: str, longest: int) -> str | None:
    """Return a header of 1 to `longest` characters, or None if it was not sent. Raises Invalid."""
    value = request.headers.get(name)
    if value is not None and (not 1 <= len(value) <= longest or "\x00" in value):
        raise Invalid({name: [f"Must have 1 to {longest} characters."]})
    return value
