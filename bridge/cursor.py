"""Pages of a list: where one ends, and the cursor that opens the next."""

import base64
import binascii
import json
import re
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from bridge.errors import Invalid


def page_and_cursor(rows: list[Row[Any]], limit: int, *place: str) -> tuple[list[Row[Any]], str | None]:
    """Cut a page from rows (one more than `limit` was asked for); return it and a cursor naming its last row."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]._mapping
    values = [value.isoformat() if isinstance(value, datetime) else str(value) for value in map(last.get, place)]
    return rows[:limit], encode_cursor(*values)


def encode_cursor(*place: str) -> str:
    """Return the cursor that names a place."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the place that a cursor names, its parts of these kinds. Raises Invalid."""
    try:
        values = json.loads(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError
        place = tuple(_READ[kind](value) for kind, value in zip(kinds, values, strict=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Invalid({"cursor": ["Must be the next_cursor of an earlier answer."]}) from None
    return place


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _small(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise ValueError
    return number


def _word(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,100}", text):
        raise ValueError
    return text


_READ: dict[type, Any] = {datetime: _moment, UUID: UUID, int: _small, str: _word}
