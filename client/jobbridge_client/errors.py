"""What can go wrong: every exception of this package is a BridgeError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge_client.records import Job, Upload


class BridgeError(Exception):
    """The call did not succeed. `upload`: how far a file that was being sent has come; pass its ID to `resume`."""

    upload: Upload | None = None


class BadSetting(BridgeError, ValueError):
    """The address, the key or an argument is invalid; nothing was sent."""


class BadFile(BridgeError):
    """A local file cannot be read or written, or changed while it was sent."""


class OtherBytes(BadFile):
    """The bridge has other bytes than the file that was sent: it changed meanwhile, or they did on the way."""


class BadAnswer(BridgeError):
    """The answer is not the bridge's, or is too large, or its bytes are not those promised."""


class Unreachable(BridgeError):
    """No answer came within the client's patience. The request may have been carried out."""


class BadSignature(BridgeError):
    """A webhook is not from the bridge, or too old to be trusted."""


class Refused(BridgeError):
    """The bridge refused: an `application/problem+json` (RFC 9457).

    `status` is HTTP's, `code` the bridge's stable name for it, `detail` a sentence, `fields` (with 422) has the
    messages of each bad field, `retry_after` is in seconds, `request_id` identifies the request in the bridge's log.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        fields: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        told = "".join(f" {name}: {messages}" for name, messages in sorted((fields or {}).items()))
        super().__init__(f"{status} {code}: {detail}{told}")
        self.status, self.code, self.detail = status, code, detail
        self.fields = dict(fields or {})
        self.retry_after, self.request_id = retry_after, request_id


class Denied(Refused):
    """401 or 403: the key is invalid, has ended, or lacks a scope or a content type."""


class NotFound(Refused):
    """404: there is no such thing for this key's tenant."""


class Conflict(Refused):
    """409: not in this state; `code` says which (`not_ready`, `already_finished`, …)."""


class Invalid(Refused):
    """422: `fields` says what is wrong. Do not repeat the request unchanged."""


class TooMany(Refused):
    """429 for longer than the client's patience."""


class JobFailed(BridgeError):
    """The job ended without a result. `job` says how: `job.status`, `job.error_message`."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.job_id}: {job.status}: {job.error_message or 'no reason was given'}")
        self.job = job


class WaitTimeout(BridgeError, TimeoutError):
    """The job had not ended in the time given. It continues; `job` is its last known state."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.job_id} is still {job.status}")
        self.job = job


_KINDS: dict[int, type[Refused]] = {
    401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 422: Invalid, 429: TooMany,
}  # fmt: skip


def kind_of(status: int) -> type[Refused]:
    """Return the exception of a status."""
    return _KINDS.get(status, Refused)
