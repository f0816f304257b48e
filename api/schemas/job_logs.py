"""What a worker stores with its job: lines of a log, and a checkpoint."""

from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from api.schemas.strict import QueryInteger
from bridge.bounded_schema import BoundedList


class LogLines(Schema):
    """Lines for the log of a job."""

    class Meta:
        unknown = EXCLUDE

    lines = BoundedList(fields.String(validate=validate.Length(max=10_000)), most=1000, required=True)
    lease_token = fields.String(load_default=None, allow_none=True)


class Checkpoint(Schema):
    """A checkpoint for the next attempt, in one of two forms; it replaces an earlier one."""

    class Meta:
        unknown = EXCLUDE

    checkpoint = fields.String(
        load_default=None, allow_none=True, metadata={"description": "Text of at most 1 MiB in UTF-8."}
    )
    checkpoint_upload = fields.String(
        load_default=None,
        allow_none=True,
        metadata={"format": "uuid", "description": "Instead of checkpoint: a finished upload of the attempt."},
    )
    lease_token = fields.String(load_default=None, allow_none=True)

    @post_load
    def _one_form(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if (data["checkpoint"] is None) == (data["checkpoint_upload"] is None):
            raise ValidationError("Send one of checkpoint and checkpoint_upload.", "checkpoint")
        return data


class UploadedCheckpoint(Schema):
    """A checkpoint that was uploaded."""

    size = fields.Integer(required=True, metadata={"description": "In bytes."})
    media_type = fields.String(
        required=True, allow_none=True, metadata={"description": "As it was uploaded; null: none was named."}
    )
    sha256 = fields.String(required=True, metadata={"description": "In hex."})
    url = fields.String(required=True, metadata={"description": "Relative to the bridge's address."})


class LogQuery(Schema):
    """Which part of a job's log."""

    class Meta:
        unknown = EXCLUDE

    after = QueryInteger(
        load_default=None,
        validate=validate.Range(0, 2**53),
        metadata={"description": "Only pieces after this one, oldest first; omit for the newest."},
    )


class LogPiece(Schema):
    """The lines that one request appended."""

    n = fields.Integer(required=True, metadata={"description": "The number of the piece, from 1, in order of arrival."})
    attempt = fields.Integer(required=True)
    at = fields.AwareDateTime(required=True)
    lines = fields.String(required=True, metadata={"description": "Each ends with a line feed."})


class LogAnswer(Schema):
    """A part of a job's log."""

    pieces = fields.List(fields.Nested(LogPiece()), required=True)
