"""The shape of an upload."""

from marshmallow import Schema, fields

from bridge.bounded_schema import member


class Upload(Schema):
    """An upload, finished or not."""

    upload_id = fields.UUID(required=True)
    length = member(fields.Integer, "The length of the file in bytes.")
    received = member(fields.Integer, "How many of them are stored.")
    name = fields.String(required=True, allow_none=True)
    media_type = fields.String(required=True, allow_none=True)
    sha256 = member(fields.String, "In hex; null until all bytes have been received.", null=True)
    created_at = fields.AwareDateTime(required=True)
    expires_at = member(fields.AwareDateTime, "null while a job names it.", null=True)
