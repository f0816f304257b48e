"""The shape of an upload."""

from marshmallow import Schema, fields


class Upload(Schema):
    """An upload, finished or not."""

    upload_id = fields.UUID(required=True)
    length = fields.Integer(required=True, metadata={"description": "The length of the file in bytes."})
    received = fields.Integer(required=True, metadata={"description": "How many of them are stored."})
    name = fields.String(required=True, allow_none=True)
    media_type = fields.String(required=True, allow_none=True)
    sha256 = fields.String(
        required=True, allow_none=True, metadata={"description": "In hex; null until all bytes have been received."}
    )
    created_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "null while a job names it."}
    )
