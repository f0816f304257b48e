"""The fields that create a job, validated the same way whoever asks: HTTP or Celery."""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from bridge.names import CONTENT_TYPE_PATTERN
from models.state import Priority

LARGEST_INTEGER = 2**53  # beyond it JSON implementations differ
DEEPEST = 64
LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # what is reckoned from it must still be a year that Python can read


def check_text(value: Any) -> None:
    """Refuse what PostgreSQL cannot store as text. Raises ValidationError."""
    if "\x00" in value:
        raise ValidationError("Must not contain a NUL character.")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValidationError("Must not contain a lone surrogate.")


def check_json(value: Any, depth: int = 0) -> None:
    """Refuse what could not be stored and read back unchanged. Raises ValidationError."""
    if depth > DEEPEST:
        raise ValidationError(f"Must not be nested deeper than {DEEPEST} levels.")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValidationError("Must not contain NaN or Infinity.")
    elif isinstance(value, int) and not -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
        raise ValidationError("Must not contain an integer beyond 2^53.")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(key)
            check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_json(item, depth + 1)


class Text(fields.String):
    """A string that PostgreSQL can store."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        check_text(text)
        return text


class StrictInteger(fields.Integer):
    """An integer, not something that looks like one."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid")
        return value


class StrictFloat(fields.Float):
    """A finite number, not a string that looks like one."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid")
        if not math.isfinite(value):
            raise self.make_error("special")
        return float(value)


class StrictBoolean(fields.Boolean):
    """true or false, not something that looks like it."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class JsonObject(fields.Dict):
    """A JSON object that can be stored and read back unchanged."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        check_json(value)
        return value


class CreateFields(Schema):
    """What creates a job (contract §3, Create)."""

    class Meta:
        unknown = RAISE

    source_file_path = Text(
        required=True,
        validate=validate.Length(1, 4096),
        metadata={"description": "Absolute path of the source file, under one of BRIDGE_SOURCE_ROOTS."},
    )
    content_type = fields.String(
        required=True,
        validate=validate.Regexp(
            rf"^{CONTENT_TYPE_PATTERN}\Z", error="Must be 1 to 50 characters of a-z 0-9 . _ and -."
        ),
        metadata={
            "description": "Which workers take it, such as `audio`, `video` or `document`.",
            "pattern": f"^{CONTENT_TYPE_PATTERN}$",
        },
    )
    task_options = JsonObject(load_default=dict, metadata={"description": "Handed to the worker as it is."})
    ingestion_task_id = Text(
        required=True,
        validate=validate.Length(1, 255),
        metadata={"description": "The pipeline's own ID, handed back at the continuation."},
    )
    priority = fields.Enum(
        Priority,
        by_value=fields.String(),
        load_default=Priority.NORMAL,
        metadata={"description": "Served first within its content type."},
    )
    max_retries = StrictInteger(load_default=3, validate=validate.Range(0, 100))
    timeout_seconds = StrictInteger(
        load_default=None,
        validate=validate.Range(1, 604800),
        metadata={"description": "How long one attempt may run (the deadline); default by content type."},
    )
    queue_timeout_seconds = StrictInteger(
        load_default=None,
        validate=validate.Range(1, 2592000),
        metadata={"description": "How long the job may wait to be claimed; default 86400."},
    )
    available_at = fields.AwareDateTime(
        format="iso",
        load_default=None,
        validate=validate.Range(max=LATEST, error="Must lie before the year 9000."),
        metadata={"description": "Not to be claimed before this moment (with an offset, in the future)."},
    )


def fingerprint(created: Mapping[str, Any]) -> bytes:
    """SHA-256 of validated fields in canonical JSON: two requests with the same one ask for the same job."""
    canonical = json.dumps(created, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(canonical.encode()).digest()


def _plain(value: Any) -> str:
    """A moment is the same one in whatever offset it was written."""
    return str(value - LATEST) if isinstance(value, datetime) else str(value)
