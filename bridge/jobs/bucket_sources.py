"""Sources in buckets (`s3://bucket/key`), read with what the operator has given the bridge's processes to read them.

An object is asked for only for a download. It goes through the bridge, by ranges of the object that it was at the
beginning, and is kept nowhere.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from bridge.blobs.bucket import AGAIN, CLIENT
from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.outgoing.destination import BadAddress
from bridge.outgoing.objects import SCHEME, Place, allowed
from bridge.runtime import Runtime
from bridge.settings import Settings

PIECE = 1024 * 1024  # bytes, of a request to the store; what a download holds
BUCKETS = 64  # whose connections are kept


class Seen(NamedTuple):
    """An object as it is now: `etag` without quotes, `modified` in seconds since 1970."""

    place: Place
    size: int
    etag: str
    modified: float
    version: str | None  # what the store calls this content of it


def is_object(path: str) -> bool:
    """Return whether this names an object, not a path."""
    return path.startswith(SCHEME)


def place_of(settings: Settings, url: str) -> Place:
    """Return the object that the URL names, if a job may name it. Raises BadAddress."""
    return allowed(settings.source_allow, url, never=str(settings.store))


def look_at_object(runtime: Runtime, url: str) -> Seen:
    """Ask the bucket for an object's metadata. Raises NotFound, which no retry changes; Unavailable."""
    try:
        place = place_of(runtime.settings, url)
    except BadAddress as why:
        raise _refused(str(why)) from None
    told = runtime.files(_head, place)
    size, most = int(told["size"]), runtime.settings.upload_max_bytes
    if size > most:
        raise _refused(f"It has {size} bytes; BRIDGE_UPLOAD_MAX_BYTES allows {most}.")
    modified = told["last_modified"].timestamp()
    strong = re.fullmatch(r'"?([\x21\x23-\x7e]{1,200})"?', told["e_tag"] or "")
    etag = strong[1] if strong else f"{int(modified):x}-{size:x}"
    return Seen(place, size, etag, modified, told["e_tag"])


def object_pieces(runtime: Runtime, seen: Seen, served: range) -> Iterator[bytes]:
    """Yield bytes of an object, in pieces. Raises NotFound, also if the object is replaced meanwhile; Unavailable."""
    for at in range(served.start, served.stop, PIECE):
        yield runtime.files(_read, seen, at, min(at + PIECE, served.stop))


def link_to_object(runtime: Runtime, seen: Seen, seconds: int) -> str:
    """Return an address at which the bucket gives the object to anyone, for `seconds`. Raises NotFound, Unavailable."""
    return runtime.files(_sign, seen.place, seconds)


def _sign(place: Place, seconds: int) -> str:
    with _judging() as obstore:
        return str(obstore.sign(_bucket(place.bucket), "GET", place.key, timedelta(seconds=seconds)))


def _head(place: Place) -> Any:
    with _judging() as obstore:
        return obstore.head(_bucket(place.bucket), place.key)


def _read(seen: Seen, start: int, stop: int) -> bytes:
    options: Any = {"range": (start, stop), **({"if_match": seen.version} if seen.version else {})}
    with _judging() as obstore:
        return bytes(obstore.get(_bucket(seen.place.bucket), seen.place.key, options=options).bytes())


@contextmanager
def _judging() -> Iterator[Any]:
    """Lend the library, whose import takes its time; its errors become those that the downloader sees."""
    import obstore

    try:
        yield obstore
    except (obstore.exceptions.BaseError, OSError) as error:
        raise _judged(error) from None


@lru_cache(BUCKETS)
def _bucket(name: str) -> Any:
    from obstore.store import from_url

    return from_url(f"{SCHEME}{name}", client_options=CLIENT, retry_config=AGAIN)


def _judged(error: Exception) -> BridgeError:
    """Translate an error of obstore into the error that the downloader sees."""
    from obstore import exceptions

    if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
        return _refused("There is no such object, or no such bucket.")
    if isinstance(error, PermissionError | exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return _refused("The bridge may not read it there.")
    if isinstance(error, exceptions.PreconditionError):
        return NotFound("The source was replaced while it was read; start the download again.")
    why = type(error).__name__
    return Unavailable(f"The source's store cannot be read at the moment ({why}); send the request again.")


def _refused(why: str) -> NotFound:
    return NotFound(f"The source cannot be had from its bucket, and asking again will not help. {why}")
