"""One claimed job as the bridge sent it: every field has the right type and a bounded size, or it is not a claim."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge_worker.job import moment
from bridge_worker.text import one_line

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CONTENT_TYPE = re.compile(r"[a-z0-9._-]{1,50}")
TOKEN = re.compile(r"[!-~]{1,500}")
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")  # on the same host: no //, no backslash, only ASCII


class BadClaim(ValueError):
    """A claim that cannot be processed; the text names the field."""


@dataclass(frozen=True)
class Claim:
    """One entry of a poll's `jobs`. `seconds_left` is the time from the answer to the deadline, or None."""

    job_id: str
    content_type: str
    task_options: dict[str, Any]
    attempt: int
    retry_count: int
    source_file_url: str | None
    timeout_at: str | None
    seconds_left: float | None
    lease_token: str | None
    source_name: str | None
    source_size: int | None
    source_media_type: str | None
    source_sha256: str | None
    checkpoint: str | None
    checkpoint_uploaded: bool  # it is a file on the bridge
    checkpoint_media_type: str | None  # of that file
    checkpoint_sha256: str | None  # of that file
    traceparent: str | None

    def __repr__(self) -> str:
        """Name the claim without its token: this text may reach a log."""
        return f"Claim({self.job_id}, {self.content_type}, attempt {self.attempt})"

    def for_handler(self) -> dict[str, Any]:
        """Return the fields that the handler's process gets: neither the token nor an address."""
        hidden = ("lease_token", "source_file_url", "seconds_left", "traceparent", "checkpoint_uploaded")
        return {name: value for name, value in vars(self).items() if name not in hidden}


def read_claim(fields: Any, date: str | None = None) -> Claim:
    """Read one entry of `jobs`; `date` is the answer's Date header. Raises BadClaim."""
    if not isinstance(fields, Mapping):
        raise BadClaim("not an object")
    deadline = moment(fields.get("timeout_at"))
    uploaded = found if isinstance(found := fields.get("checkpoint_upload"), Mapping) else None
    return Claim(
        job_id=_text(fields, "job_id", JOB_ID, required=True) or "",
        content_type=_text(fields, "content_type", CONTENT_TYPE, required=True) or "",
        task_options=_object(fields, "task_options"),
        attempt=_count(fields, "attempt") or 1,
        retry_count=_count(fields, "retry_count") or 0,
        source_file_url=_path(fields),
        timeout_at=deadline.isoformat() if deadline else None,
        seconds_left=deadline.timestamp() - _now(date) if deadline else None,
        lease_token=_text(fields, "lease_token", TOKEN),
        source_name=_name(fields),
        source_size=_count(fields, "source_size"),
        source_media_type=_loose(fields, "source_media_type", 200),
        source_sha256=_sha256(fields, "source_sha256"),
        traceparent=_traceparent(fields),
        checkpoint=found if isinstance(found := fields.get("checkpoint"), str) and len(found) <= 2**20 else None,
        checkpoint_uploaded=uploaded is not None,
        checkpoint_media_type=_loose(uploaded or {}, "media_type", 200),
        checkpoint_sha256=_sha256(uploaded or {}, "sha256"),
    )


def _now(date: str | None) -> float:
    """Return the bridge's time at its answer: this machine's clock may be wrong by hours."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    except (ValueError, TypeError, OverflowError):
        return time.time()


def _text(fields: Mapping[str, Any], name: str, pattern: re.Pattern[str], *, required: bool = False) -> str | None:
    value = fields.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadClaim(f"{name} is not a text of the form {pattern.pattern}")
    return value


def _path(fields: Mapping[str, Any]) -> str | None:
    try:
        return _text(fields, "source_file_url", PATH)
    except BadClaim:
        return ""  # elsewhere: the download refuses it


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadClaim(f"{name} is not an object")
    return value


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise BadClaim(f"{name} is not a count")
    return value


def _loose(fields: Mapping[str, Any], name: str, limit: int) -> str | None:
    """Return a merely descriptive text: an invalid one must not cost the job."""
    value = fields.get(name)
    return one_line(value, limit) or None if isinstance(value, str) else None


def _sha256(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a digest in hex; without one, that of the download is used."""
    value = fields.get(name)
    return value if isinstance(value, str) and SHA256.fullmatch(value) else None


def _traceparent(fields: Mapping[str, Any]) -> str | None:
    value = fields.get("traceparent")
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None


def _name(fields: Mapping[str, Any]) -> str | None:
    """Return the source file's name without any directory."""
    name = _loose(fields, "source_name", 255)
    return re.split(r"[/\\]", name)[-1] or None if name else None
