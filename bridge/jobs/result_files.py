"""The files that a result names: uploads of its attempt, kept from then on for as long as the job.

They are named in the transaction that completes the job: a job is completed with all of them, or not at all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from bridge.blobs.content import check_utf8
from bridge.blobs.uploads import UPLOAD_ID_PATTERN
from bridge.crash_points import reach
from bridge.errors import Invalid
from bridge.runtime import Runtime
from models.upload import TEXT

MOST_ARTIFACTS = 1000
LONGEST_NAME = 200  # characters; in bytes never more than file systems take
LONGEST_NAME_BYTES = 255
TEXT_TYPE = "text/plain"
UNKNOWN_TYPE = "application/octet-stream"

NAME_RULE = (
    f"Must be 1 to {LONGEST_NAME} printable characters ({LONGEST_NAME_BYTES} bytes), without a slash or a backslash,"
    " not beginning with a dot."
)
NO_UPLOAD = "No such upload of this job's attempt, or not all of its bytes are there."

# Only uploads of the result's attempt, made with its holder's key: the fence of the attempt holds for its files too.
FIND = text("""
SELECT id, media_type, utf8 FROM uploads WHERE id = ANY (CAST(:uploads AS uuid[]))
  AND tenant = :tenant AND key_id = :key_id AND job_id = :job_id AND attempt = :attempt AND sha256 IS NOT NULL
""")
# None of that ever changes: since the look an upload can only have gone.
NAME = text("""
WITH asked AS (
  SELECT * FROM unnest(CAST(:names AS text[]), CAST(:uploads AS uuid[]), CAST(:types AS text[]))
    AS n(name, upload_id, media_type)
), kept AS (
  UPDATE uploads u SET expires_at = NULL WHERE u.id IN (SELECT upload_id FROM asked) RETURNING u.id
), held AS (
  INSERT INTO job_uploads (job_id, upload_id) SELECT :job_id, id FROM kept ON CONFLICT DO NOTHING
)
INSERT INTO job_files (job_id, name, upload_id, media_type)
SELECT :job_id, asked.name, asked.upload_id, asked.media_type FROM asked JOIN kept ON kept.id = asked.upload_id
""")


class _Named(NamedTuple):
    """A file of a result."""

    field: str  # of the result, for error messages
    name: str
    upload: str
    media_type: str | None


def is_name(name: str) -> bool:
    """Return whether an artifact may have this name: one path segment, on any system."""
    return (
        1 <= len(name) <= LONGEST_NAME
        and name.isprintable()  # which a lone surrogate is not
        and len(name.encode()) <= LONGEST_NAME_BYTES
        and not name.startswith(".")
        and not re.search(r"[/\\]", name)
    )


def named_in(result: Mapping[str, Any]) -> bool:
    """Return whether a result names files."""
    return bool(result.get("result_upload") or result.get("artifacts"))


def look_at_files(runtime: Runtime, job: Row[Any], result: Mapping[str, Any]) -> Callable[[Connection], None]:
    """Return a function that names a success's files in the transaction that completes its job (row: read.JUDGED).

    Raises Invalid if a name is used twice, an upload is incomplete or not of this attempt, or the text is not UTF-8;
    NotFound or Unavailable if the store does not return the text.
    """
    named = _read(result)
    whose = {"tenant": job.tenant, "key_id": job.key_id, "job_id": job.id, "attempt": job.attempt}
    with runtime.engine.connect() as connection:
        params = {**whose, "uploads": list({one.upload for one in named})}
        found = {str(row.id): row for row in connection.execute(FIND, params)}
    _all_there(named, found)
    if named[0].name == TEXT:
        _check_text(runtime, named[0], found[named[0].upload].utf8)
    reach("result.before_naming")

    def name(connection: Connection) -> None:
        params = {
            **whose,
            "names": [one.name for one in named],
            "uploads": [one.upload for one in named],
            "types": [one.media_type or found[one.upload].media_type or UNKNOWN_TYPE for one in named],
        }
        if connection.execute(NAME, params).rowcount != len(named):
            raise Invalid({named[0].field: ["An upload has gone meanwhile."]})
        reach("result.after_naming")

    return name


def _read(result: Mapping[str, Any]) -> list[_Named]:
    """Return the files, the text first. Raises Invalid."""
    named = []
    if result.get("result_upload"):
        if result.get("content") is not None:
            raise Invalid({"result_upload": ["Send the text as content or as an upload, not both."]})
        named.append(_Named("result_upload", TEXT, result["result_upload"], TEXT_TYPE))
    names = set()
    for place, artifact in enumerate(result.get("artifacts") or ()):
        field = f"artifacts.{place}"
        if artifact["name"] in names:
            raise Invalid({f"{field}.name": ["Another artifact has this name."]})
        names.add(artifact["name"])
        named.append(_Named(f"{field}.upload", artifact["name"], artifact["upload"], artifact.get("media_type")))
    for one in named:
        if not re.fullmatch(UPLOAD_ID_PATTERN, one.upload):
            raise Invalid({one.field: [NO_UPLOAD]})
    return named


def _all_there(named: Sequence[_Named], found: Mapping[str, Any]) -> None:
    # The first few: a request may name a hundred thousand.
    missing = {one.field: [NO_UPLOAD] for one in islice((one for one in named if one.upload not in found), 20)}
    if missing:
        raise Invalid({**missing})


def _check_text(runtime: Runtime, named: _Named, known: bool | None) -> None:
    """Check that the text is UTF-8. Raises Invalid. `known`: whether it was UTF-8 as it arrived; None: read it now."""
    if known is False:
        raise Invalid({named.field: ["The text is not UTF-8."]})
    if known:
        return
    try:
        check_utf8(runtime, UUID(named.upload))
    except UnicodeDecodeError as error:
        raise Invalid({named.field: [f"The text is not UTF-8: {error.reason}."]}) from None
