"""The shape of every error, and the values that several shapes share."""

from marshmallow import Schema, fields

from bridge.bounded_schema import member
from models.job_state import JobState, Priority

STATES = [str(state) for state in JobState]
PRIORITIES = [str(priority) for priority in Priority]


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
