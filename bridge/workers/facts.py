"""What a worker says about itself and its machine: shown to people, and never relied on."""

import json
from typing import NamedTuple

MOST_CHARACTERS = 100  # of a text
MOST_BYTES = 2**53 - 1  # of memory: what JSON's readers take for an integer


class Facts(NamedTuple):
    """A worker's facts; None for each that it did not state."""

    version: str | None = None  # of the worker's program
    host: str | None = None
    platform: str | None = None
    gpu: str | None = None
    memory: int | None = None  # bytes that it may use
    memory_free: int | None = None  # bytes


UNTOLD = Facts()


def stored(facts: Facts) -> str:
    """Return the form in which Redis keeps the facts: JSON text."""
    return json.dumps(facts)


def read(text: str | bytes | None) -> Facts:
    """Read what `stored` returned; anything else gives no facts: whoever reaches Redis can write anything there."""
    try:
        values = json.loads(text or "")
    except (ValueError, TypeError, RecursionError):
        return UNTOLD
    if not isinstance(values, list) or len(values) != len(Facts._fields):
        return UNTOLD
    texts, numbers = values[:4], values[4:]
    if not all(value is None or (isinstance(value, str) and len(value) <= MOST_CHARACTERS) for value in texts):
        return UNTOLD
    if not all(value is None or (type(value) is int and 0 <= value <= MOST_BYTES) for value in numbers):
        return UNTOLD
    return Facts(*values)
