"""Objects of buckets that a stranger has named (`s3://bucket/key`), checked against the list of what may be read.

The key is taken as it is written, without any decoding. What is asked is the bucket at the operator's own endpoint, so
no address is looked up: the list alone says what may be read.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from bridge.outgoing.destination import BadAddress

SCHEME = "s3://"
LONGEST_KEY = 1024  # bytes, as S3 has it
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FORM = (
    "Must look like s3://bucket/key: the bucket in a-z 0-9 . and -, the key as it is, printable, without empty parts."
)


class Place(NamedTuple):
    """An object, or all below it: the parts of `key` are separated by slashes; an empty one is the whole bucket."""

    bucket: str
    key: str

    def holds(self, other: "Place") -> bool:
        """Return whether the other is this one, or below it."""
        below = not self.key or other.key == self.key or other.key.startswith(f"{self.key}/")
        return other.bucket == self.bucket and below


def parsed(url: str) -> Place:
    """Take an object's address apart. Raises BadAddress."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    parts = key.split("/")
    if (
        not url.startswith(SCHEME)
        or not _BUCKET.fullmatch(bucket)
        or not key.isprintable()  # which a lone surrogate is not
        or len(key.encode(errors="replace")) > LONGEST_KEY
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise BadAddress(_FORM)
    return Place(bucket, key)


def entry(text: str) -> Place:
    """Parse an entry of the list: `s3://bucket`, or `s3://bucket/prefix` and what is below it. Raises ValueError."""
    try:
        bucket, _, prefix = text.removeprefix(SCHEME).rstrip("/").partition("/")
        return parsed(f"{SCHEME}{bucket}/{prefix}") if prefix else Place(parsed(f"{SCHEME}{bucket}/x").bucket, "")
    except BadAddress as why:
        raise ValueError(f"{text!r}: {why}") from None


def allowed(entries: Sequence[str], url: str, *, never: str = "") -> Place:
    """Return the object at `url` if it may be read. `never`: an entry of which none may be. Raises BadAddress."""
    place = parsed(url)
    if not any(entry(one).holds(place) for one in entries if one.startswith(SCHEME)):
        raise BadAddress("The object is not among those that the operator allows.")
    if never.startswith(SCHEME) and entry(never).holds(place):
        raise BadAddress("Objects of the bridge's own store are named as uploads.")
    return place
