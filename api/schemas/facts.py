"""What a worker reports about itself with a poll or a heartbeat, and how it is shown."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from api.schemas.strict import QueryInteger
from bridge.jobs.fields import StrictInteger
from bridge.sparse_schema import Sparse
from bridge.workers.facts import MOST_BYTES, MOST_CHARACTERS, Facts

_TEXT = validate.Length(max=MOST_CHARACTERS)
_BYTES = validate.Range(0, MOST_BYTES)
_MEMORY = {"description": "Bytes of memory that the worker may use; shown to operators."}
_FREE = {"description": "Bytes of it that are free now; shown to operators."}


def _text(what: str) -> fields.String:
    told = {"description": f"{what}; shown to operators."}
    return fields.String(load_default=None, allow_none=True, validate=_TEXT, metadata=told)


class _Texts(Sparse):
    version = _text("Version of the worker's program")
    host = _text("Name of its machine")
    platform = _text("Operating system and processor")
    gpu = _text("GPUs")


class QueryFacts(_Texts):
    """The facts in a poll's query."""

    memory = QueryInteger(load_default=None, validate=_BYTES, metadata=_MEMORY)
    memory_free = QueryInteger(load_default=None, validate=_BYTES, metadata=_FREE)


class BodyFacts(_Texts):
    """The facts in a heartbeat's body."""

    memory = StrictInteger(load_default=None, allow_none=True, validate=_BYTES, metadata=_MEMORY)
    memory_free = StrictInteger(load_default=None, allow_none=True, validate=_BYTES, metadata=_FREE)


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
