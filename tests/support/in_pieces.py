"""Uploads of as many objects as a test wants, without a request for each."""

from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Row

from bridge.blobs import append_to_upload
from bridge.caller import Caller
from tests.support.arriving import announced, stands
from tests.support.core import KEY, Core


def in_pieces(core: Core, content: bytes, count: int, key: Caller = KEY) -> Row[Any]:
    """Return an upload that holds these bytes in `count` objects of the same size (the last one may be smaller)."""
    upload = append_to_upload.append(core.runtime, announced(core, len(content), key), iter([content]))
    [whole] = core.sql("DELETE FROM upload_segments WHERE upload_id = :id RETURNING object", id=str(upload.id))
    root, size = Path(str(core.runtime.settings.store).removeprefix("file:")), -(-len(content) // count)
    (root / whole.object).unlink()
    starts = range(0, len(content), size)
    names = [f"tenant-{upload.tenant}/{uuid4()}" for _ in starts]
    for name, start in zip(names, starts, strict=True):
        (root / name).write_bytes(content[start : start + size])
    core.sql(
        "INSERT INTO upload_segments (id, object, upload_id, start, size) SELECT gen_random_uuid(), name, :id, start,"
        " least(:size, :length - start) FROM unnest(CAST(:names AS text[]), CAST(:starts AS bigint[])) n(name, start)",
        id=str(upload.id), names=names, starts=[*starts], size=size, length=len(content),
    )  # fmt: skip
    core.sql("UPDATE uploads SET segments = :count WHERE id = :id", count=len(names), id=str(upload.id))
    return stands(core, upload, key)


def objects_of(core: Core, upload: Row[Any]) -> list[str]:
    """Return the objects that an upload names, in order."""
    asked = "SELECT object FROM upload_segments WHERE upload_id = :id AND size IS NOT NULL ORDER BY start"
    return [row.object for row in core.sql(asked, id=str(upload.id))]
