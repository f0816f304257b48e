"""Schemas of many fields, few of which are sent: marshmallow takes a microsecond to default each of the others."""

from typing import Any

from marshmallow import Schema, ValidationError, missing

MOST_PARTS = 64  # sets of names that are remembered; requests of one kind name the same fields again and again

_Part = tuple[Schema, list[tuple[str, Any]]]


class Sparse(Schema):
    """Loads what was sent by a schema of these fields alone, and adds the defaults of the others.

    What that refuses is loaded in the usual way, so that a refusal says the same. Fields are loaded under their own
    names, and a hook sees those that were sent.
    """

    _parts: dict[tuple[str, ...], _Part | None] | None = None

    def load(self, data: Any, **options: Any) -> Any:
        """Load as marshmallow does. Raises ValidationError."""
        part = self._part(data) if not any(options.values()) else None
        if part is None:
            return super().load(data, **options)
        sent, others = part
        loaded = None
        try:
            loaded = Schema.load(sent, data)
        except ValidationError as error:
            error.__traceback__ = None  # marshmallow's frame, which holds the error: a cycle that would keep the data
        if loaded is None:
            return super().load(data, **options)
        for name, default in others:
            loaded.setdefault(name, default() if callable(default) else default)
        return loaded

    def _part(self, data: Any) -> _Part | None:
        """Return the schema of the fields that are sent, and the defaults of the others; None if there is none."""
        if type(data) is not dict or self.many or self.partial or self.only is not None:
            return None
        if self._parts is None:
            self._parts = {}
        names = tuple([name for name in self.load_fields if name in data])
        if names in self._parts:
            return self._parts[names]
        others = {name: field for name, field in self.load_fields.items() if name not in data}
        part = None
        if names and not any(field.required for field in others.values()):
            defaults = [(name, field.load_default) for name, field in others.items()]
            part = type(self)(only=names, unknown=self.unknown), [one for one in defaults if one[1] is not missing]
        if len(self._parts) < MOST_PARTS:
            self._parts[names] = part
        return part
