"""Foreign text, made safe for a log line, a header and the bridge's storage."""

from __future__ import annotations

import re
from typing import Any

# What the bridge cannot store and read back: NUL and lone surrogates.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def one_line(text: str, limit: int) -> str:
    """Return `text` as one line of at most `limit` characters: no control characters, no lone surrogates."""
    text = text[: 4 * limit + 1000].encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:limit]


def storable(value: Any, depth: int = 0) -> Any:
    """Return a JSON value without the characters that the bridge refuses, in texts and in names of members."""
    if isinstance(value, str):
        return UNSTORABLE.sub("", value)
    if depth > 64:  # the encoder or the bridge refuses it with a better message
        return value
    if isinstance(value, dict):
        return {storable(name, depth + 1): storable(item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(item, depth + 1) for item in value]
    return value
