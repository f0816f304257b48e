"""Which bytes of a file a request asks for (RFC 9110 §14)."""

import re
from datetime import UTC, datetime

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_date


def asked_range(header: str | None, size: int) -> range | None:
    """Return the bytes of one range, or None for the whole file. Raises 416 when the range lies outside.

    An unknown unit, several ranges and anything that is not a range are ignored, as the RFC allows or demands.
    """
    found = re.fullmatch(r"bytes=([0-9]{0,30})-([0-9]{0,30})", header or "", re.IGNORECASE)
    if found is None or found[0].endswith("=-"):
        return None
    first, last = found[1], found[2]
    if not first:
        asked = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        asked = range(int(first), min(int(last) + 1, size) if last else size)
    if not asked:
        raise RequestedRangeNotSatisfiable(size)
    return asked


def still_the_same(if_range: str | None, etag: str, modified: float) -> bool:
    """Return whether the file is the one that `If-Range` names, by its strong ETag or its exact date."""
    if if_range is None:
        return True
    if if_range.lstrip().startswith(('"', "W/")):
        return if_range.strip() == f'"{etag}"'
    return parse_date(if_range) == datetime.fromtimestamp(int(modified), UTC)
