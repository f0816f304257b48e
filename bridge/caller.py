"""The caller of a request: its key, tenant and scopes."""

from typing import NamedTuple
from uuid import UUID

from bridge.names import DEFAULT_TENANT

NO_KEY = UUID(int=0)  # with BRIDGE_AUTH=off everybody is this one key


class Caller(NamedTuple):
    """A key as far as the core needs it."""

    key_id: UUID = NO_KEY
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset({"admin"})
    content_types: frozenset[str] | None = None  # None: all
    callback_url: str | None = None  # called for its jobs that name none
    signs: bool = False  # has a secret that signs webhooks
    source_fetch: str | None = None  # who fetches from addresses for its jobs that do not say; None: the bridge

    @property
    def whose(self) -> tuple[str, UUID]:
        """Return the tenant and the key for which something is held (bridge/admission/byte_budget.py)."""
        return self.tenant, self.key_id

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes
