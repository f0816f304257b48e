"""The guard of every JSON body: what it lets through can be stored, read back unchanged and listed.

orjson parses, which is fast and strict but for four things: it keeps the last of two equal keys, makes a float of an
integer beyond 64 bits, and refuses lone surrogates and deep nesting without saying where. Only where one of them is
possible is the text read a second time, by the standard library, to find the place.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from bridge.admission.json_text import count, encodes, has_more_values, holds

DEEPEST = 64  # objects and arrays inside each other
MOST_VALUES = 250_000  # in one body
LONGEST_NAME = 256  # of an object's member
LARGEST_INTEGER = 2**53  # beyond it JSON implementations differ

_NO_NUMBER = ("NaN", "Infinity")  # orjson reports the position after a sign


class NotJson(ValueError):
    """The text is not JSON."""


class Refused(ValueError):
    """The text is well-formed, but could not be stored and read back unchanged.

    `place` is the path of the value (`task_options.a[3]`, "" for the whole body), `reason` a sentence, `body` what was
    understood of it, `is_json` False for NaN and Infinity, which some writers take for JSON.
    """

    def __init__(self, place: str, reason: str, body: Any = None, *, is_json: bool = True) -> None:
        self.place = place[:200]
        super().__init__(f"{self.place or 'body'}: {reason}")
        self.reason = reason
        self.body = body
        self.is_json = is_json

    @property
    def errors(self) -> dict[str, object]:
        """Return the top-level field → what is wrong, and where in it."""
        field = re.split(r"[.\[]", self.place, maxsplit=1)[0] or "body"
        return {field: [self.reason if self.place in ("", field) else f"{self.reason} (at {self.place})"]}


def parse(raw: bytes) -> Any:
    """Parse a JSON text and return its value. Raises NotJson, Refused."""
    if has_more_values(raw, MOST_VALUES):
        raise Refused("", _TOO_MANY)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if not _may_be_json(error):
            raise NotJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
        value = _read_again(raw, error)
        check(value)
        raise NotJson(error.msg) from None  # what the second reader accepted the first one may rightly refuse
    colons = _check(value)
    if colons is None or colons != count(raw, b":") or holds(raw, b"\\u003"):
        value = _read_again(raw, None)
        check(value)
    return value


def parse_each(raw: bytes, name: str) -> Any:
    """Parse as `parse` does, but put what is wrong in an item of the list `name` in the item's place, as a Refused.

    Raises NotJson, and Refused for what is wrong elsewhere or with the whole.
    """
    try:
        return parse(raw)
    except Refused as refusal:
        if not refusal.place.startswith(f"{name}["):
            raise
    body = _read_again(raw, None)  # an object, since a member of it was named
    items = body.pop(name)
    if not isinstance(items, list):
        check({name: items})
    check(body)
    return {**body, name: [_judged(item) for item in items]}


def _judged(item: Any) -> Any:
    try:
        check(item)
    except Refused as refusal:
        return refusal.with_traceback(None)
    return item


def check(value: Any) -> None:
    """Refuse a Python value that could not be stored as JSON and read back unchanged. Raises Refused."""
    _check(value)


class _Bad(NamedTuple):
    """A marker where the second reading found what the first one hides."""

    reason: str
    is_json: bool = True


_TOO_MANY = f"Must not hold more than {MOST_VALUES} values."
_TOO_DEEP = f"Must not be nested deeper than {DEEPEST} levels."
_NUL = "Must not contain a NUL character."
_SURROGATE = "Must not contain a lone surrogate."
_NAME = f"Must not have a member whose name is longer than {LONGEST_NAME} characters."
_INTEGER = "Must not contain an integer beyond 2^53."
_FLOAT = "Must not contain a number that is too large for a double."
_NAN = "Must not contain NaN or Infinity, which JSON does not know."
_TWICE = "Must not be given twice in one object."


def _check(value: Any) -> int | None:
    """Count the colons that the text of this value has (members, and those in strings); return None if a number may
    have been an integer beyond 64 bits. Goes level by level, so that no depth can exhaust a stack."""
    level: list[Any] = [value]
    seen = colons = depth = 0
    doubtful = False
    while level:
        seen += len(level)
        if seen > MOST_VALUES:
            raise Refused("", _TOO_MANY, value)
        if depth > DEEPEST + 1:
            raise _found(value)
        depth += 1
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                if "\0" in item or not (item.isascii() or encodes(item)):
                    raise _found(value)
                colons += count(item, ":")
            elif kind is dict:
                for name in item:
                    if _wrong_name(name):
                        raise _found(value)
                    colons += name.count(":") + 1
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            elif kind is int:
                if not -LARGEST_INTEGER <= item <= LARGEST_INTEGER:
                    raise _found(value)
            elif kind is float:
                if not math.isfinite(item):
                    raise _found(value)
                doubtful = doubtful or abs(item) > LARGEST_INTEGER
            elif kind is _Bad:
                raise _found(value)
        level = below
    return None if doubtful else colons


def _wrong_name(name: Any) -> str | None:
    return _NAME if len(name) > LONGEST_NAME else _wrong_text(name)


def _wrong_text(text: str) -> str | None:
    if "\0" in text:
        return _NUL
    return None if text.isascii() or encodes(text) else _SURROGATE


def _found(body: Any) -> Refused:
    """Find the first thing wrong in a value that is known to be wrong; return it with its place."""
    path: list[str | int] = []
    levels = _walk(body, path)
    depth, item = next(levels)
    while (wrong := _wrong(depth, item)) is None:
        depth, item = next(levels)
    return Refused(_place(path), wrong, body, is_json=not isinstance(item, _Bad) or item.is_json)


def _wrong(depth: int, item: Any) -> str | None:
    """Return what is wrong with a value itself, whatever is inside it; None if nothing is."""
    if isinstance(item, _Bad):
        return item.reason
    if isinstance(item, str):
        return _wrong_text(item)
    if isinstance(item, dict | list):
        if depth > DEEPEST:
            return _TOO_DEEP
        return next(filter(None, map(_wrong_name, item)), None) if isinstance(item, dict) else None
    if isinstance(item, float):
        return None if math.isfinite(item) else _NAN if math.isnan(item) else _FLOAT
    if isinstance(item, int) and not -LARGEST_INTEGER <= item <= LARGEST_INTEGER:
        return _INTEGER
    return None


def _walk(body: Any, path: list[str | int]) -> Iterator[tuple[int, Any]]:
    """Yield (depth in objects and arrays, a container counting itself; value), in the order of the text.

    `path` is kept to the names and indexes that lead to the value; only a refusal needs it as text.
    """
    yield 1, body
    levels = [_members_of(body)]
    while True:  # until what is wrong is found
        step = next(levels[-1], None)
        if step is None:
            levels.pop()
            path.pop()
            continue
        name, item = step
        path.append(name)
        yield len(levels) + 1, item
        if isinstance(item, dict | list):
            levels.append(_members_of(item))
        else:
            path.pop()


def _members_of(item: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(item, dict):
        return iter(item.items())
    return iter(enumerate(item)) if isinstance(item, list) else iter(())


def _place(path: list[str | int]) -> str:
    """Format a path, such as `task_options.a[3]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in path).lstrip(".")


def _shown(name: str) -> str:
    """Return a name in the form in which an answer may show it."""
    return re.sub(r"[^\x20-\x7e]|[.\[]", "?", name[:50])


def _may_be_json(error: orjson.JSONDecodeError) -> bool:
    """Return whether orjson refused what JSON's grammar allows, or what some writers take for JSON."""
    if re.search(r"surrogate in|infinity|depth limit", error.msg):
        return True
    return error.doc.startswith(_NO_NUMBER, error.pos)


def _read_again(raw: bytes, refusal: orjson.JSONDecodeError | None) -> Any:
    """Read the value with the standard library, with `_Bad` where orjson hides or cannot say what is wrong."""
    try:
        return json.loads(
            raw.decode(),
            parse_int=_integer,
            parse_constant=lambda _: _Bad(_NAN, is_json=False),
            object_pairs_hook=_members,
        )
    except RecursionError:
        raise Refused("", _TOO_DEEP) from None
    except ValueError:
        raise NotJson(str(refusal.msg) if refusal is not None else "The text is not JSON") from None


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) <= 17 and abs(int(digits)) <= LARGEST_INTEGER else _Bad(_INTEGER)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        members[name] = _Bad(_TWICE) if name in members else value
    return members
