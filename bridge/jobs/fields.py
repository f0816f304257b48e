"""The fields that create a job, validated the same way whoever asks: HTTP or Celery.

What comes here has passed the JSON guard (bridge/admission/json_guard.py): its text and numbers can be stored.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, post_load
from marshmallow.validate import Length, OneOf, Range, Regexp

from bridge.bounded_schema import ShortChoice, ShortMoment, ShortUuid, Strict, member, optional
from bridge.canonical_hash import canonical_hash
from bridge.jobs.remote_sources import BRIDGE, FETCHES, WORKER, is_remote
from bridge.jobs.uploaded_sources import SCHEME as UPLOAD
from bridge.jobs.uploaded_sources import is_uploaded
from bridge.names import CONTENT_TYPE_PATTERN
from bridge.outgoing.destination import LONGEST
from models.job_state import Priority

LATEST = datetime(9000, 1, 1, tzinfo=UTC)


class StrictInteger(fields.Integer):
    """An integer, not something that looks like one."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid")
        return value


class Moment(ShortMoment):
    """A moment with an offset, in UTC: PostgreSQL does not know every offset that ISO 8601 allows."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> datetime:
        try:
            moment: datetime = super()._deserialize(value, attr, data, **kwargs)
            return moment.astimezone(UTC)
        except OverflowError:  # an offset that leads out of the calendar
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None


class JsonObject(fields.Dict):
    """A JSON object, as it is."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        return value


class CreateFields(Strict):
    """The fields that create a job."""

    source_file_path = fields.String(
        validate=Length(1, 4096),
        metadata={"description": "Absolute path of the source file, under one of BRIDGE_SOURCE_ROOTS."},
    )
    source_upload = ShortUuid(metadata={"description": "An upload that is whole, in place of `source_file_path`."})
    source_url = fields.String(
        validate=Length(1, LONGEST),
        metadata={
            "description": "An https address or s3://bucket/key that BRIDGE_SOURCE_ALLOW allows, in place of a path."
        },
    )
    source_fetch = optional(
        fields.String,
        "Who asks the server of `source_url`: bridge or worker directly; default: the key's.",
        validate=OneOf(FETCHES),
    )
    source_sha256 = optional(
        fields.String,
        "The file's SHA-256 in hex, which its worker checks.",
        validate=Regexp(r"^[0-9a-fA-F]{64}\Z", error="Must be a SHA-256: 64 hex digits."),
    )
    content_type = member(
        fields.String,
        "Which workers take it, such as `audio`, `video` or `document`.",
        validate=Regexp(rf"^{CONTENT_TYPE_PATTERN}\Z", error="Must be 1 to 50 characters of a-z 0-9 . _ and -."),
    )
    task_options = optional(JsonObject, "Handed to the worker as it is.", load_default=dict)
    ingestion_task_id = member(
        fields.String, "The pipeline's own ID, handed back at the continuation.", validate=Length(1, 255)
    )
    priority = optional(
        ShortChoice,
        "Served first within its content type.",
        Priority,
        by_value=fields.String(),
        load_default=Priority.NORMAL,
    )
    max_retries = StrictInteger(load_default=3, validate=Range(0, 100))
    timeout_seconds = optional(
        StrictInteger,
        "How long one attempt may run (the deadline); default by content type.",
        validate=Range(1, 604800),
    )
    queue_timeout_seconds = optional(
        StrictInteger, "How long the job may wait to be claimed; default 86400.", validate=Range(1, 2592000)
    )
    unserved_after_seconds = optional(
        StrictInteger,
        "Send an outcome `unserved` once no worker has asked for its type for this long.",
        validate=Range(30, 2592000),
    )
    callback_url = optional(
        fields.String,
        "An https address that receives the job's outcomes; default: that of the key.",
        validate=Length(1, LONGEST),
    )
    available_at = Moment(
        format="iso",
        load_default=None,
        # Every clock that is computed from it must stay within the years that a client can read.
        validate=Range(max=LATEST, error=f"Must be before the year {LATEST.year}."),
        metadata={"description": "Not to be claimed before this moment (with an offset, in the future)."},
    )

    @post_load
    def _one_source(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Put the source under one name: `upload:ID` or an address takes the place of a path."""
        if data.get("source_sha256") is not None:
            data["source_sha256"] = data["source_sha256"].lower()
        given = [name for name in ("source_file_path", "source_upload", "source_url") if name in data]
        if not given:
            raise ValidationError("Missing data for required field.", "source_file_path")
        if len(given) > 1:
            raise ValidationError(f"Name {' or '.join(given)}, one of them.", given[-1])
        if data.get("source_fetch") == WORKER and given != ["source_url"]:
            raise ValidationError("Only what is at a source_url can be fetched by the worker.", "source_fetch")
        value = data.pop(given[0])
        if given == ["source_upload"]:
            return {"source_file_path": f"{UPLOAD}{value}", **data}
        if given == ["source_url"] and not is_remote(value):
            raise ValidationError(
                "Must begin with https:// or s3://, as in https://files.example.org/a.pdf.", "source_url"
            )
        if given == ["source_file_path"] and is_uploaded(value):
            raise ValidationError("Name an upload in source_upload.", "source_file_path")
        if given == ["source_file_path"] and is_remote(value):
            raise ValidationError("Name an address in source_url.", "source_file_path")
        return {"source_file_path": value, **data}


def fingerprint(created: Mapping[str, Any]) -> bytes:
    """SHA-256 of validated fields in canonical JSON: two requests with the same one ask for the same job."""
    return canonical_hash(_as_before(created), (",", ":"), _plain)


# Fields that were added later, left out while they have such a value: what was asked for before keeps its hash.
_LATER = {
    "unserved_after_seconds": (None,),
    "callback_url": (None,),
    "source_fetch": (None, BRIDGE),  # the bridge was the default before keys had one
    "source_sha256": (None,),
}


def _as_before(created: Any) -> Any:
    if isinstance(created, list | tuple):
        return [_as_before(one) for one in created]
    if "jobs" in created:
        return {**created, "jobs": _as_before(created["jobs"])}
    return {name: value for name, value in created.items() if value not in _LATER.get(name, ())}


def _plain(value: Any) -> str:
    """Render a value for the hash; a moment is the same in whatever offset it was written."""
    return str(value - LATEST) if isinstance(value, datetime) else str(value)
