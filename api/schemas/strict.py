"""Fields of HTTP requests that accept exactly their type, and nothing that only looks like it."""

import math
import re
import uuid
from typing import Any

from marshmallow import fields

from bridge.jobs.read import JOB_ID_PATTERN


class QueryInteger(fields.Integer):
    """An integer in a query: plain digits, not everything that int() accepts (`+5`, ` 5`, `1_0`, `٣`)."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,15}", value):
            raise self.make_error("invalid")
        return int(value)


class QueryNumber(fields.Float):
    """A number in a query: digits and at most a point, not everything that float() accepts."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> float:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", value):
            raise self.make_error("invalid")
        return float(value)


class JobId(fields.UUID):
    """A job's ID as in a path, not everything that uuid.UUID accepts (braces, `urn:uuid:`, no hyphens)."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> uuid.UUID:
        if not isinstance(value, str) or not re.fullmatch(JOB_ID_PATTERN, value):
            raise self.make_error("invalid_uuid")
        return uuid.UUID(value)


class StrictFloat(fields.Float):
    """A finite number, not a string that looks like one."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid")
        if not math.isfinite(value):
            raise self.make_error("special")
        return float(value)


class Untouched(fields.Nested):
    """A value that is passed on unvalidated and judged later. The OpenAPI document shows the schema."""

    def deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class StrictBoolean(fields.Boolean):
    """true or false, not something that looks like them."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value
