"""The files of a job's result."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, Range

from api.schemas.strict import QueryInteger
from bridge.bounded_schema import Strict, member


class ArtifactsQuery(Strict):
    """Which page of a job's artifacts."""

    limit = QueryInteger(load_default=100, validate=Range(1, 500))
    cursor = fields.String(load_default=None, validate=Length(1, 200))


class Artifact(Schema):
    """A file of a job's result."""

    name = fields.String(required=True)
    size = member(fields.Integer, "In bytes.")
    media_type = fields.String(required=True)
    sha256 = fields.String(required=True)


class ArtifactPage(Schema):
    """A page of artifacts, sorted by name."""

    items = fields.List(fields.Nested(Artifact()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class ResultText(Schema):
    """The size and hash of a result's text."""

    size = member(fields.Integer, "In bytes of UTF-8.")
    sha256 = member(fields.String, "In hex; null if it was not uploaded.", null=True)
