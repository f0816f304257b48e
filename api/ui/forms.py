"""What the dashboard's forms send: few short fields, read once and within bounds."""

from typing import Any, TypeVar
from urllib.parse import parse_qsl

from flask import g, request
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from api.http.incoming import arriving
from bridge.errors import Invalid

MOST_BYTES = 64 * 1024
MOST_FIELDS = 60

Made = TypeVar("Made")


def read_form() -> dict[str, str]:
    """Return the fields of this request's form; the values of a repeated field are joined by commas.

    Raises 400, 408, 413, 415, and Invalid.
    """
    if "ui_form" in g:
        return dict(g.ui_form)
    if request.mimetype != "application/x-www-form-urlencoded" or "Content-Encoding" in request.headers:
        raise UnsupportedMediaType("Send the form as application/x-www-form-urlencoded.")
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        raise BadRequest("Send the form with a Content-Length.")
    if request.content_length > MOST_BYTES:
        raise RequestEntityTooLarge
    with arriving():
        raw = request.get_data()
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except (ValueError, UnicodeError):
        raise BadRequest("The form is malformed.") from None
    form: dict[str, str] = {}
    for name, value in pairs:
        if "\x00" in name + value:
            raise Invalid({name.replace("\x00", "")[:100]: ["Must not contain a NUL character."]})
        form[name] = f"{form[name]},{value}" if name in form else value
    g.ui_form = form
    return dict(form)


def loaded(schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
    """Load the given fields by a schema of the API, without the empty ones. Raises Invalid."""
    try:
        read: dict[str, Any] = schema.load({name: value for name, value in given.items() if value not in ("", None)})
    except ValidationError as error:
        raise Invalid(dict(error.normalized_messages())) from None
    return read
