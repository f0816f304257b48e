"""What a worker reports about itself with a poll or a heartbeat, and how it is shown."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, Range

from api.schemas.strict import QueryInteger
from bridge.bounded_schema import Lenient, optional
from bridge.jobs.fields import StrictInteger
from bridge.sparse_schema import Sparse
from bridge.workers.facts import MOST_BYTES, MOST_CHARACTERS, Facts

_TEXT = Length(max=MOST_CHARACTERS)
_BYTES = Range(0, MOST_BYTES)
_MEMORY = "Bytes of memory that the worker may use; shown to operators."
_FREE = "Bytes of it that are free now; shown to operators."


class _Texts(Lenient, Sparse):
    version = optional(fields.String, "Version of the worker's program; shown to operators.", validate=_TEXT)
    host = optional(fields.String, "Name of its machine; shown to operators.", validate=_TEXT)
    platform = optional(fields.String, "Operating system and processor; shown to operators.", validate=_TEXT)
    gpu = optional(fields.String, "GPUs; shown to operators.", validate=_TEXT)


class QueryFacts(_Texts):
    """The facts in a poll's query."""

    memory = optional(QueryInteger, _MEMORY, validate=_BYTES)
    memory_free = optional(QueryInteger, _FREE, validate=_BYTES)


class BodyFacts(_Texts):
    """The facts in a heartbeat's body."""

    memory = optional(StrictInteger, _MEMORY, validate=_BYTES)
    memory_free = optional(StrictInteger, _FREE, validate=_BYTES)


class ShownFacts(Schema):
    """What a worker reports about itself, unverified; null where it reports nothing."""

    version = fields.String(required=True, allow_none=True)
    host = fields.String(required=True, allow_none=True)
    platform = fields.String(required=True, allow_none=True)
    gpu = fields.String(required=True, allow_none=True)
    memory = fields.Integer(required=True, allow_none=True)
    memory_free = fields.Integer(required=True, allow_none=True)


def facts_of(told: Mapping[str, Any]) -> Facts:
    """Return the facts among the fields of a poll or a heartbeat."""
    return Facts(*(told.get(name) for name in Facts._fields))
