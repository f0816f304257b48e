"""The shape of every error, and the values that several shapes share."""

from marshmallow import Schema, fields
from marshmallow.validate import Regexp

from bridge.bounded_schema import member
from bridge.names import CONTENT_TYPE_PATTERN
from models.job_state import JobState, Priority

STATES = [str(state) for state in JobState]
PRIORITIES = [str(priority) for priority in Priority]
IS_CONTENT_TYPE = Regexp(rf"^{CONTENT_TYPE_PATTERN}\Z", error="Not a content type: use a-z 0-9 . _ and -.")


class Problem(Schema):
    """An error (RFC 9457)."""

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = member(fields.String, "A human-readable explanation.")
    code = member(fields.String, "Stable; see docs/protocol.md.")
    drain = fields.Boolean(
        metadata={"description": "With code `paused`: if true, the worker is to finish what it holds and to end."}
    )
    errors = fields.Dict(keys=fields.String(), metadata={"description": "Of a validation: field → messages."})
