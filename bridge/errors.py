"""What can go wrong with a request, as a closed list. The edges render these; nothing else is caught there."""

from heapq import nsmallest
from itertools import islice

# A batch of a thousand jobs can have thousands of bad fields.
MOST_ERRORS = 100  # fields in an answer
MOST_NAMED = 10  # fields in a sentence


class BridgeError(Exception):
    """A refusal with a stable `code` and a sentence for a person; `retry_after`: seconds until it may be over."""

    code = "internal"
    retry_after: int | None = None

    def __init__(self, detail: str, *, code: str | None = None, job_status: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.job_status = job_status  # the job's state, where the caller may know it


class NotFound(BridgeError):
    """There is no such job (for this tenant)."""

    code = "not_found"


class Invalid(BridgeError):
    """A field cannot be accepted. `errors` maps each field to its messages, the first MOST_ERRORS of them."""

    code = "validation"

    def __init__(self, errors: dict[str, object], *, code: str | None = None, job_status: str | None = None) -> None:
        super().__init__(_sentence(errors), code=code, job_status=job_status)
        self.errors = dict(islice(errors.items(), MOST_ERRORS))


class Conflict(BridgeError):
    """The job is not in the state that the request needs. `code` says why."""

    code = "lease_lost"


class Forbidden(BridgeError):
    """The key may not do this, or not now."""

    code = "forbidden"


class Unauthorized(BridgeError):
    """No API key, or an invalid one."""

    code = "unauthorized"


class TooMany(BridgeError):
    """More than BRIDGE_LIMITS allows, for now."""

    code = "too_many"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Paused(TooMany):
    """The worker is given no jobs for the time being."""

    code = "paused"


class Draining(Paused):
    """The worker is given no more jobs: it is to finish what it holds, and to end."""


class TooLarge(BridgeError):
    """More than the bridge stores."""

    code = "too_large"


class WrongChecksum(BridgeError):
    """The bytes that came are not those that were sent; none of them counts."""

    code = "checksum_mismatch"


class Unavailable(BridgeError):
    """PostgreSQL, the file system of a source file, or the store of uploads does not answer.

    The same request may be sent again.
    """

    code = "unavailable"
    retry_after = 2


def _sentence(errors: dict[str, object]) -> str:
    parts = [f"{field}: {_first(messages)}" for field, messages in nsmallest(MOST_NAMED, errors.items())]
    if len(errors) > MOST_NAMED:
        parts.append(f"and {len(errors) - MOST_NAMED} more")
    return "The request was refused. " + "; ".join(parts)


def _first(messages: object) -> str:
    while isinstance(messages, dict | list) and messages:
        messages = next(iter(messages.values())) if isinstance(messages, dict) else messages[0]
    return str(messages)
