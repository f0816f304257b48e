"""What a client sends: JSON and query parameters, read strictly."""

from typing import Any

import orjson
from flask import Request, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema
from webargs import missing
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from bridge.errors import Invalid


def read_json(incoming: Request) -> Any:
    """The JSON body. Raises 400 (malformed), 413, 415."""
    if incoming.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without a Content-Encoding.")
    raw = incoming.get_data(cache=True)
    if not raw:
        return missing
    if not (incoming.mimetype == "application/json" or incoming.mimetype.endswith("+json")):
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error.msg} at line {error.lineno}.") from None


class StrictParser(FlaskParser):
    """Reads JSON with `read_json`, and refuses repeated query parameters."""

    DEFAULT_VALIDATION_STATUS = 422
    DEFAULT_UNKNOWN_BY_LOCATION = {}  # each schema says itself whether unknown query parameters are refused

    def load_json(self, req: Request, schema: Schema) -> Any:
        return read_json(req)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        return single(req.args)


def single(parameters: MultiDict[str, str]) -> dict[str, str]:
    """Query parameters, each given once. Raises Invalid."""
    repeated = {name: ["Must be given once."] for name, values in parameters.lists() if len(values) > 1}
    if repeated:
        raise Invalid(dict(repeated))
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
