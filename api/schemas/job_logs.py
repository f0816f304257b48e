"""What a worker stores with its job: lines of a log, and a checkpoint."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load
from marshmallow.validate import Length, Range

from api.schemas.strict import QueryInteger
from bridge.bounded_schema import BoundedList, Lenient, member, optional


class LogLines(Lenient):
    """Lines for the log of a job."""

    lines = BoundedList(fields.String(validate=Length(max=10_000)), most=1000, required=True)
    lease_token = fields.String(load_default=None)


class Checkpoint(Lenient):
    """A checkpoint for the next attempt, in one of two forms; it replaces an earlier one."""

    checkpoint = optional(fields.String, "Text of at most 1 MiB in UTF-8.")
    checkpoint_upload = fields.String(
        load_default=None,
        metadata={"format": "uuid", "description": "Instead of checkpoint: a finished upload of the attempt."},
    )
    lease_token = fields.String(load_default=None)

    @post_load
    def _one_form(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if (data["checkpoint"] is None) == (data["checkpoint_upload"] is None):
            raise ValidationError("Send one of checkpoint and checkpoint_upload.", "checkpoint")
        return data


class UploadedCheckpoint(Schema):
    """A checkpoint that was uploaded."""

    size = member(fields.Integer, "In bytes.")
    media_type = member(fields.String, "As it was uploaded; null: none was named.", null=True)
    sha256 = member(fields.String, "In hex.")
    url = member(fields.String, "Relative to the bridge's address.")


class LogQuery(Lenient):
    """Which part of a job's log."""

    after = optional(
        QueryInteger, "Only pieces after this one, oldest first; omit for the newest.", validate=Range(0, 2**53)
    )


class LogPiece(Schema):
    """The lines that one request appended."""

    n = member(fields.Integer, "The number of the piece, from 1, in order of arrival.")
    attempt = fields.Integer(required=True)
    at = fields.AwareDateTime(required=True)
    lines = member(fields.String, "Each ends with a line feed.")


class LogAnswer(Schema):
    """A part of a job's log."""

    pieces = fields.List(fields.Nested(LogPiece()), required=True)
