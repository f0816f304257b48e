"""What clients asked, and what they were told when: the half of the evidence that the bridge cannot change.

All times are seconds of this machine's monotonic clock.
"""

import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bridge.names import API_BASE, API_ROOT


class Outcome(StrEnum):
    """What a client knows of its call."""

    OK = "ok"
    REFUSED = "refused"  # the bridge said no: nothing was done
    UNKNOWN = "unknown"  # no answer, or one that says that it may have been done (503)


@dataclass(frozen=True, slots=True)
class Given:
    """A job as a poll's answer hands it out."""

    job_id: str
    attempt: int
    token: str
    content_type: str


@dataclass(slots=True)
class Call:
    """One call. Until `ended` is set its outcome is unknown, also where its client never came to say more."""

    who: str
    what: str  # a key of ROUTES; over Celery "send"
    tenant: str
    began: float
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    status: int | None = None  # HTTP's
    code: str | None = None  # of a problem
    retry_after: bool = False  # whether the answer had that header
    echoed: bool = True  # whether the answer had the X-Request-ID that was sent
    expects: frozenset[int] = frozenset()  # refusals that this call provokes on purpose
    key: str | None = None  # idempotency key
    count: int = 1  # jobs that a create asked for
    job_id: str | None = None
    job_ids: tuple[str, ...] = ()  # of an answer to a create, or to a list
    attempt: int | None = None
    token: str | None = None
    worker: str | None = None
    content_types: frozenset[str] = frozenset()  # that a poll asked for
    content: str | None = None  # of a result that was sent: None where it was a failure
    wait: float = 0.0  # seconds that a poll said it would wait
    given: tuple[Given, ...] = ()
    state: str | None = None  # the job's, as the answer told it
    lease_ends: float | None = None  # as the answer told it
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome == Outcome.OK

    def __str__(self) -> str:
        """One line for a person."""
        said = {
            name: value
            for name in ("key", "job_id", "attempt", "worker", "content", "state", "code", "detail")
            if (value := getattr(self, name))
        }
        took = "…" if self.ended is None else f"{self.ended - self.began:.3f} s"
        words = " ".join(f"{name}={str(value)[:120]}" for name, value in said.items())
        given = " ".join(f"{one.job_id}#{one.attempt}" for one in self.given)
        return f"{self.began:.3f} ({took}) {self.who} {self.what} → {self.outcome} {self.status or ''} {words} {given}"


@dataclass(slots=True)
class Trouble:
    """One fault of the nemesis."""

    kind: str
    began: float
    ended: float | None = None

    def __str__(self) -> str:
        return f"{self.began:.3f} fault {self.kind}"


class Violation(NamedTuple):
    """What breaks an invariant, and the events that show it."""

    what: str
    events: tuple[object, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"    {event}" for event in self.events)])


@dataclass
class History:
    """Every call and every fault, in the order in which they began."""

    calls: list[Call] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin(self, who: str, what: str, tenant: str, **said: Any) -> Call:
        """Note that a call is made, before it is."""
        call = Call(who, what, tenant, time.monotonic(), **said)
        with self._lock:
            self.calls.append(call)
        return call

    def trouble(self, kind: str) -> Trouble:
        """Note that a fault begins."""
        trouble = Trouble(kind, time.monotonic())
        with self._lock:
            self.troubles.append(trouble)
        return trouble

    def of(self, *whats: str) -> list[Call]:
        """Return the calls of these kinds."""
        return [call for call in self.calls if call.what in whats]


#: What clients call: method and path as the OpenAPI document has them.
ROUTES = {
    "create": ("POST", API_BASE),
    "batch": ("POST", f"{API_BASE}/batch"),
    "list": ("GET", API_BASE),
    "statistics": ("GET", f"{API_BASE}/statistics"),
    "poll": ("GET", f"{API_BASE}/poll"),
    "job": ("GET", f"{API_BASE}/{{job_id}}"),
    "status": ("GET", f"{API_BASE}/{{job_id}}/status"),
    "explain": ("GET", f"{API_BASE}/{{job_id}}/explain"),
    "read": ("GET", f"{API_BASE}/{{job_id}}/result"),
    "download": ("GET", f"{API_BASE}/{{job_id}}/download"),
    "heartbeat": ("POST", f"{API_BASE}/{{job_id}}/heartbeat"),
    "result": ("PUT", f"{API_BASE}/{{job_id}}/result"),
    "release": ("POST", f"{API_BASE}/{{job_id}}/release"),
    "cancel": ("POST", f"{API_BASE}/{{job_id}}/cancel"),
    "retry": ("POST", f"{API_BASE}/{{job_id}}/retry"),
    "cancel many": ("POST", f"{API_BASE}/cancel"),
    "resend": ("POST", f"{API_ROOT}/continuations/resend"),
    "readyz": ("GET", "/readyz"),
}
