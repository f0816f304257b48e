"""SHA-256 of a value's canonical JSON, in pieces: a document of 16 MiB, or of a quarter of a million values, takes a
third of a second, in which others go on.

The text is that of `json.dumps(value, sort_keys=True)`: what was stored by an earlier version compares with it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from heapq import merge
from json import JSONEncoder
from json.encoder import encode_basestring_ascii
from typing import Any

import gevent

PIECE = 32 * 1024  # characters of a text that are written at once, and hashed at once
TURN = 2000  # values that are written before others have their turn
SORTED = 8 * 1024  # names that are sorted at once
_ATOMS = {int, float, bool, type(None)}


def canonical_hash(value: Any, separators: tuple[str, str], default: Callable[[Any], str] = str) -> bytes:
    """Return the SHA-256; `separators` and `default` (for other types) are those of json.dumps. Names are strings."""
    writer = _Writer(*separators, default)
    writer.write(value)
    return writer.digest()


class _Writer:
    def __init__(self, comma: str, colon: str, default: Callable[[Any], str]) -> None:
        self._comma, self._colon = comma, colon
        self._atoms = JSONEncoder(separators=(comma, colon), default=default).encode
        self._hash = hashlib.sha256()
        self._parts: list[str] = []
        self._length = self._values = 0

    def digest(self) -> bytes:
        self._hash_parts()
        return self._hash.digest()

    def write(self, value: Any) -> None:
        self._values += 1
        if self._values >= TURN:
            self._let_others()
        if isinstance(value, str):
            self._text(value)
        elif isinstance(value, Mapping):
            self._object(value)
        elif isinstance(value, list | tuple):
            self._array(value)
        else:
            self._parts.append(self._atoms(value))

    def _object(self, value: Mapping[str, Any]) -> None:
        before = "{"
        for name in value if len(value) < 2 else self._in_order(list(value)):
            self._parts.append(before)
            self._text(name)
            self._parts.append(self._colon)
            self.write(value[name])
            before = self._comma
        self._parts.append("}" if value else "{}")

    def _array(self, value: list[Any] | tuple[Any, ...]) -> None:
        before = "["
        for start in range(0, len(value), TURN):
            some = value[start : start + TURN]
            if _ATOMS.issuperset(map(type, some)):
                self._parts.append(before)
                self._piece(self._atoms(some)[1:-1])
                before = self._comma
                continue
            for one in some:
                self._parts.append(before)
                self.write(one)
                before = self._comma
        self._parts.append("]" if value else "[]")

    def _text(self, text: str) -> None:
        if len(text) <= PIECE:
            self._piece(encode_basestring_ascii(text))
            return
        self._parts.append('"')
        for start in range(0, len(text), PIECE):
            self._piece(encode_basestring_ascii(text[start : start + PIECE])[1:-1])
        self._parts.append('"')

    def _piece(self, written: str) -> None:
        self._parts.append(written)
        self._length += len(written)
        if self._length >= PIECE:
            self._let_others()

    def _let_others(self) -> None:
        self._hash_parts()
        self._values = 0
        gevent.sleep(0)

    def _hash_parts(self) -> None:
        self._hash.update("".join(self._parts).encode("ascii"))
        self._parts.clear()
        self._length = 0

    def _in_order(self, names: list[str]) -> Iterator[str] | list[str]:
        if len(names) <= SORTED:
            return sorted(names)
        runs = []
        for start in range(0, len(names), SORTED):
            runs.append(sorted(names[start : start + SORTED]))
            gevent.sleep(0)
        return merge(*runs)
