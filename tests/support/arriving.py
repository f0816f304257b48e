"""Uploads in the core: announced, looked at, read back."""

import os
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from bridge.blobs import content, uploads
from bridge.blobs.append_to_upload import SEGMENT_BYTES
from bridge.caller import Caller
from tests.support.core import KEY, Core

FILE = os.urandom(SEGMENT_BYTES * 2 + 12345)


def announced(core: Core, length: int = len(FILE), key: Caller = KEY) -> Row[Any]:
    """Return a new upload of so many bytes, of FILE unless told."""
    return uploads.announce(core.runtime, key, uploads.Announced(length))


def stands(core: Core, upload: Row[Any], key: Caller = KEY) -> Row[Any]:
    """Return the upload as it is now."""
    return uploads.find_upload(core.runtime, key, str(upload.id))


def content_of(core: Core, upload: Row[Any], served: range | None = None) -> bytes:
    """Its bytes, or those at these places."""
    upload_id: UUID = upload.id
    return b"".join(content.pieces(core.runtime, upload_id, range(upload.length) if served is None else served))
