"""What can go wrong: every exception of this package is a BridgeError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobbridge_client.records import Job, Upload


class BridgeError(Exception):
    """The call did not succeed. `upload`: how far the file came, where one was being sent; give it to `resume`."""

    upload: Upload | None = None


class BadSetting(BridgeError, ValueError):
    """The address, the key or an argument cannot be what it should; nothing was sent."""


class BadFile(BridgeError):
    """A local file cannot be read or written, or changed while it was sent."""


class BadAnswer(BridgeError):
    """What answered is not the bridge, or said more than it should, or bytes came that are not those promised."""


class Unreachable(BridgeError):
    """No answer came within the client's patience. What was asked for may have been done."""


class BadSignature(BridgeError):
    """A webhook is not from the bridge, or too old to be believed."""


class Refused(BridgeError):
    """The bridge refused: an `application/problem+json` (RFC 9457).

    `status` is HTTP's, `code` the bridge's stable word for it, `detail` a sentence, `fields` (with 422) has the
    messages of each bad field, `retry_after` is in seconds, `request_id` finds the request in the bridge's log.
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
    """401 or 403: the key does not count, has ended, or lacks a scope or a content type."""


class NotFound(Refused):
    """404: there is no such thing for this key's tenant."""


class Conflict(Refused):
    """409: not in this state; `code` says which (`not_ready`, `already_finished`, …)."""


class Invalid(Refused):
    """422: `fields` says what is wrong. Never repeat it as it is."""


class TooMany(Refused):
    """429 for longer than the client's patience."""


class JobFailed(BridgeError):
    """The job ended, and not with a result. `job` says how: `job.status`, `job.error_message`."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.job_id}: {job.status}: {job.error_message or 'no reason was given'}")
        self.job = job


class WaitTimeout(BridgeError, TimeoutError):
    """The job had not ended in the time given. It goes on; `job` is its last known state."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.job_id} is still {job.status}")
        self.job = job


_KINDS: dict[int, type[Refused]] = {
    401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 422: Invalid, 429: TooMany,
}  # fmt: skip


def kind_of(status: int) -> type[Refused]:
    """Return the exception of a status."""
    return _KINDS.get(status, Refused)
