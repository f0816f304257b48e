"""What can be told about a JSON text before it is parsed, found piece by piece.

What Python does in C blocks its other threads, the event loop's too: no piece takes more than a millisecond or two.
"""

import re
from typing import Any

PIECE = 256 * 1024  # bytes, or characters

# A string in a text without escapes. An unclosed one reaches to the end, so that the time is linear.
_STRING = re.compile(rb'"[^"]*"?')


def count(text: str | bytes, one: Any) -> int:
    """Count a character in a text."""
    if len(text) <= PIECE:
        return text.count(one)
    return sum(text.count(one, start, start + PIECE) for start in range(0, len(text), PIECE))


def holds(text: bytes, some: bytes) -> bool:
    """Return whether these few bytes are in a text."""
    if len(text) <= PIECE:
        return some in text
    return any(text.find(some, start, start + PIECE + len(some) - 1) >= 0 for start in range(0, len(text), PIECE))


def encodes(text: str) -> bool:
    """Return whether a text can be written in UTF-8: it has no lone surrogate."""
    try:
        for start in range(0, len(text), PIECE):
            text[start : start + PIECE].encode()
    except UnicodeEncodeError:
        return False
    return True


def has_more_values(raw: bytes, most: int) -> bool:
    """Return whether a JSON text has more values than `most`, or more strings than they and their names may be.

    Each value but the first of an object or array follows a comma, and each object and array is one itself. For a text
    that is not JSON the answer may be either.
    """
    if len(raw) < most:  # each takes a byte at least
        return False
    if count(raw, b",") < most and count(raw, b"[") + count(raw, b"{") <= most:
        return False  # however many of these are in strings
    commas = opened = quotes = start = 0
    while start < len(raw):
        piece = raw[start : start + PIECE]
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        if slashes % 2:  # the character that the last one escapes belongs to it
            piece = raw[start : start + PIECE + 1]
        start += len(piece)
        plain = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        within = quotes % 2  # a string goes on from the piece before
        quotes += plain.count(b'"')
        if quotes > 4 * most:
            return True
        plain = _STRING.sub(b"", b'"' + plain if within else plain)
        commas += plain.count(b",")
        opened += plain.count(b"[") + plain.count(b"{")
        if commas >= most or opened > most:
            return True
    return False
