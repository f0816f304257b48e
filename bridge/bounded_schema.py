"""Schemas with bounded error messages and bounded parsing, and how their fields are declared.

A body of a quarter of a million unknown names or bad items is refused at the first few of them, where marshmallow would
write a message for each. A text of 16 MB where a moment, a UUID or one of three words is expected is refused for its
length, before it is parsed.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeVar

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load

from bridge.sparse_schema import Sparse

MOST_UNKNOWN = 20  # names that an error lists
MOST_BAD = 100  # items of a list
LONGEST_FORM = 100  # characters of what has a form: a moment, an ID, one of some words

F = TypeVar("F")


def member(kind: Callable[..., F], told: str, *args: Any, null: bool = False, **options: Any) -> F:
    """Declare a field that is always there; `null`: it may be null. `told` describes it in the OpenAPI document."""
    return kind(*args, required=True, allow_none=null, metadata={"description": told}, **options)


def optional(kind: Callable[..., F], told: str, *args: Any, **options: Any) -> F:
    """Declare a field that a request may leave out; without a `load_default` it is then None, and may be null."""
    return kind(*args, **{"load_default": None, **options}, metadata={"description": told})


class Lenient(Schema):
    """A schema that ignores names it does not know."""

    class Meta:
        unknown = EXCLUDE


class Strict(Sparse):
    """A schema that refuses names it does not know."""

    class Meta:
        unknown = RAISE

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """Load as marshmallow does, without its traceback, whose frame holds the error: a cycle that would keep a
        refused body until a full collection."""
        try:
            return super().load(*args, **kwargs)
        except ValidationError as error:
            raise error.with_traceback(None) from None

    @pre_load
    def _few_unknown(self, data: Any, **_: Any) -> Any:
        if isinstance(data, Mapping) and len(data) > len(self.fields) + MOST_UNKNOWN:
            known = {field.data_key or name for name, field in self.fields.items()}
            unknown = islice((name for name in data if name not in known), MOST_UNKNOWN)
            raise ValidationError({name: ["Unknown field."] for name in unknown})
        return data


class BoundedList(fields.List[Any]):
    """A list of `least` to `most` items, whose number is checked before any of them."""

    def __init__(self, inner: Any, *, most: int, least: int = 1, **options: Any) -> None:
        self._bounds = (least, most)
        super().__init__(inner, **options)
        self.metadata = {"minItems": least, "maxItems": most, **self.metadata}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        least, most = self._bounds
        if isinstance(value, list) and not least <= len(value) <= most:
            raise ValidationError(f"Length must be between {least} and {most}.")
        if not isinstance(value, list):
            raise self.make_error("invalid")
        items, errors = [], {}
        for place, each in enumerate(value):
            try:
                items.append(self.inner.deserialize(each, **kwargs))
            except ValidationError as error:
                errors[place] = error.with_traceback(None).messages
                if len(errors) == MOST_BAD:
                    break
        if errors:
            raise ValidationError(errors)
        return items


class _Short(fields.Field[Any]):
    """A field that is parsed only if its text has at most LONGEST_FORM characters."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and len(value) > LONGEST_FORM:
            raise ValidationError(f"Must have at most {LONGEST_FORM} characters.")
        return super()._deserialize(value, attr, data, **kwargs)


class ShortUuid(_Short, fields.UUID):
    """A UUID in any of the forms that Python reads."""


class ShortChoice(_Short, fields.Enum):  # type: ignore[type-arg]
    """A member of an enumeration."""


class ShortMoment(_Short, fields.AwareDateTime):
    """A moment with an offset."""
