"""The bridge's objects, as frozen records. `data` has every member as it came, those of later versions too."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from jobbridge_client.errors import BadAnswer

if TYPE_CHECKING:
    from typing_extensions import Self

Priority = Literal["high", "normal", "low"]
FINAL = ("completed", "failed", "timeout", "cancelled")
UPLOAD = (("upload_id", str), ("length", int), ("received", int))


class JobFields(TypedDict, total=False):
    """Further fields of a new job; docs/protocol.md has ranges and defaults."""

    source_fetch: Literal["bridge", "worker"]
    source_sha256: str
    task_options: dict[str, Any]
    priority: Priority
    max_retries: int
    timeout_seconds: int
    queue_timeout_seconds: int
    unserved_after_seconds: int
    available_at: datetime
    callback_url: str


class Filters(TypedDict, total=False):
    """Filters of a list of jobs; the moments are exclusive."""

    status: str
    content_type: str
    ingestion_task_id: str
    worker_id: str
    created_after: datetime
    created_before: datetime


@dataclass(frozen=True)
class Job:
    """A job as one answer showed it. Fields that the answer lacked are None."""

    job_id: str
    status: str
    created_at: datetime | None
    content_type: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    estimated_completion: datetime | None = None
    progress: float | None = None
    message: str | None = None
    error_message: str | None = None
    retry_count: int | None = None
    data: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ended(self) -> bool:
        """Whether the job is in a final state; only an operator's retry leads out of one."""
        return self.status in FINAL

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Read a job. Raises BadAnswer."""
        return cls(
            member(data, "job_id", str),
            member(data, "status", str),
            moment(data, "created_at"),
            optional(data, "content_type", str),
            moment(data, "started_at"),
            moment(data, "completed_at"),
            moment(data, "estimated_completion"),
            optional(data, "progress", float),
            optional(data, "message", str),
            optional(data, "error_message", str),
            optional(data, "retry_count", int),
            data,
        )


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first, and the cursor of the next page (None: there is none)."""

    jobs: list[Job]
    next_cursor: str | None


@dataclass(frozen=True)
class Batch:
    """The jobs of a batch, in the order in which they were given."""

    batch_id: str | None
    jobs: list[Job]


@dataclass(frozen=True)
class BatchState:
    """The state of a batch: the number of jobs at its creation, and of those still stored by state."""

    batch_id: str
    jobs: int
    by_status: dict[str, int]
    ended: bool


@dataclass(frozen=True)
class Upload:
    """An upload: its bytes in all and those stored by the bridge; `sha256` (hex) once it is complete."""

    upload_id: str
    length: int
    received: int
    sha256: str | None = None

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Read an upload. Raises BadAnswer."""
        upload_id, length, received = (member(data, name, kind) for name, kind in UPLOAD)
        if not (0 <= received <= length and re.fullmatch("[!-~]{1,100}", upload_id)):
            raise BadAnswer("the answer was not understood: there is no such upload")
        return cls(upload_id, length, received, optional(data, "sha256", str))


@dataclass(frozen=True)
class Result:
    """The result of a job; `processing_time` is in seconds."""

    text: str
    metadata: dict[str, Any] | None
    processing_time: float | None
    data: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Artifact:
    """A named file of a result besides its text: size in bytes, SHA-256 in hex."""

    name: str
    size: int
    media_type: str
    sha256: str

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Read an artifact. Raises BadAnswer."""
        described = (member(data, "media_type", str), member(data, "sha256", str))
        return cls(member(data, "name", str), member(data, "size", int), *described)


def member(data: dict[str, Any], name: str, kind: type) -> Any:
    """Return a member of this type. Raises BadAnswer."""
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise BadAnswer(f"the answer was not understood: {name} is {type(value).__name__}, not {kind.__name__}")
    return value


def optional(data: dict[str, Any], name: str, kind: type) -> Any:
    """Return a member of this type, or None where it is null or missing. Raises BadAnswer."""
    value = data.get(name)
    if value is None:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return member(data, name, kind)


def moment(data: dict[str, Any], name: str) -> datetime | None:
    """Return a moment with its offset. Raises BadAnswer."""
    written = optional(data, name, str)
    try:
        return None if written is None else datetime.fromisoformat(written)
    except ValueError:
        raise BadAnswer(f"the answer was not understood: {name} is not a timestamp") from None
