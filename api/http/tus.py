"""tus 1.0, a protocol for resumable uploads: its request headers, read strictly, and those of its answers."""

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from flask import Request, Response, request
from gunicorn.http.errors import NoMoreData, ParseException
from sqlalchemy import Row
from werkzeug.exceptions import PreconditionFailed, UnsupportedMediaType
from werkzeug.http import http_date

from api.http.access import runtime
from api.http.connections import CURRENT
from bridge.blobs.append_to_upload import Checksum, Cut
from bridge.errors import Invalid, TooLarge

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
ALGORITHMS = ("sha1", "sha256", "sha512")
BYTES = "application/offset+octet-stream"
IDLE_SECONDS = 60.0  # within which a piece must come
PIECE = 64 * 1024
MOST_METADATA = 4096
MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}")


class Stopping(Cut):
    """The process stops."""


def check_version() -> None:
    """Raise 412 where the request does not name this version."""
    if request.headers.get("Tus-Resumable") != VERSION:
        raise PreconditionFailed(f"Send Tus-Resumable: {VERSION}; this is the tus protocol (https://tus.io).")


def say_version(response: Response) -> Response:
    """Set the headers that every answer about uploads has, and return it."""
    response.headers["Tus-Resumable"] = VERSION
    if request.method == "OPTIONS" or response.status_code == 412:
        response.headers["Tus-Version"] = VERSION
    if request.method == "OPTIONS":
        response.headers["Tus-Extension"] = EXTENSIONS
        response.headers["Tus-Max-Size"] = str(runtime().settings.upload_max_bytes)
        response.headers["Tus-Checksum-Algorithm"] = ",".join(ALGORITHMS)
    return response


def state(upload: Row[Any]) -> dict[str, str]:
    """Return the headers that say how far an upload has come."""
    headers = {"Upload-Offset": str(upload.received), "Upload-Length": str(upload.length)}
    if upload.received < upload.length:
        headers["Upload-Expires"] = str(http_date(upload.expires_at))
    if upload.metadata is not None:
        headers["Upload-Metadata"] = upload.metadata
    return headers


def number(name: str) -> int:
    """Return a header that counts bytes. Raises Invalid."""
    value = request.headers.get(name, "")
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise Invalid({name: ["Must be a number of bytes, in plain digits."]})
    return int(value)


def metadata() -> tuple[str | None, dict[str, str]]:
    """Return Upload-Metadata as it was sent, and its values by their keys. Raises Invalid."""
    raw = request.headers.get("Upload-Metadata")
    if not raw:
        return None, {}
    bad = Invalid({"Upload-Metadata": ["Must be pairs of a key and a Base64 value in UTF-8, separated by commas."]})
    if len(raw) > MOST_METADATA or not re.fullmatch(r"[\x20-\x7e]*", raw):
        raise Invalid({"Upload-Metadata": [f"Must have at most {MOST_METADATA} characters of ASCII."]})
    values: dict[str, str] = {}
    for pair in raw.split(","):
        key, _, coded = pair.strip().partition(" ")
        try:
            value = base64.b64decode(coded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise bad from None
        if not key or key in values or "\x00" in value:
            raise bad
        values[key] = value
    return raw, values


def file_name(values: dict[str, str]) -> str | None:
    """Return the file's name without its directories, or None if none was sent. Raises Invalid."""
    name = re.split(r"[/\\]", values.get("filename", values.get("name", "")))[-1]
    if len(name) > 255 or not name.isprintable():
        raise Invalid({"Upload-Metadata": ["filename must have at most 255 characters, all of them printable."]})
    return name or None


def media_type(values: dict[str, str]) -> str | None:
    """Return the file's media type, or None if none or an invalid one was sent."""
    told = values.get("filetype", values.get("type", ""))
    return told if MEDIA_TYPE.fullmatch(told) else None


def checksum() -> Checksum | None:
    """Return what the body must hash to, or None if that was not sent. Raises Invalid."""
    sent = request.headers.get("Upload-Checksum")
    if sent is None:
        return None
    algorithm, _, coded = sent.partition(" ")
    if algorithm not in ALGORITHMS:
        raise Invalid({"Upload-Checksum": [f"Must be {', '.join(ALGORITHMS)}, a space and the hash in Base64."]})
    try:
        return Checksum(algorithm, base64.b64decode(coded, validate=True))
    except binascii.Error:
        raise Invalid({"Upload-Checksum": ["The hash must be Base64."]}) from None


def check_body(left: int) -> None:
    """Raise 415 where the body is not a piece of an upload, TooLarge where it is longer than what is still to come."""
    if request.mimetype != BYTES or request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType(f"Send the bytes as {BYTES}, without a Content-Encoding.")
    if (request.content_length or 0) > left:
        raise TooLarge("The body is longer than what the upload still lacks (Upload-Length).")


def pieces(incoming: Request) -> Iterator[bytes]:
    """Yield the body as it comes. Raises Cut where it ends early, or nothing comes for IDLE_SECONDS; Stopping."""
    connection = CURRENT.get()
    if connection is None:
        yield from _pieces(incoming)
        return
    with connection.upload():
        try:
            for piece in _pieces(incoming):
                yield piece
                if connection.ending:
                    raise Stopping("the process stops")
        except Cut:
            if connection.ending:
                raise Stopping("the process stops") from None
            raise


def _pieces(incoming: Request) -> Iterator[bytes]:
    stream, came = incoming.environ["wsgi.input"], 0
    while True:
        try:
            with gevent.Timeout(IDLE_SECONDS, Cut("nothing came for a while")):
                piece = stream.read(PIECE)
        except (ParseException, NoMoreData, OSError) as error:
            raise Cut(type(error).__name__) from None
        if not piece:
            break
        came += len(piece)
        yield piece
        gevent.sleep(0)  # a client that sends quickly does not keep the others waiting
    if came < (incoming.content_length or 0):
        raise Cut("it ended early")


def lively(chunks: Iterable[bytes], sign: Callable[[], object], every: float) -> Iterator[bytes]:
    """Pass bytes on and call `sign` after each `every` seconds in which some came. Raises what `sign` does."""
    last = time.monotonic()
    for chunk in chunks:
        if time.monotonic() - last >= every:
            sign()
            last = time.monotonic()
        yield chunk
