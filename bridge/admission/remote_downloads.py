"""How many downloads of sources at addresses a process passes on at once.

Each holds two connections, and asks a server that is not ours.
"""

from contextlib import ExitStack
from uuid import UUID

from bridge.admission.byte_budget import Budget
from bridge.errors import TooMany

MOST, OF_TENANT, OF_KEY = 128, 64, 32
AGAIN_SECONDS = 5


class RemoteDownloads:
    """Those of one process."""

    def __init__(self, most: int = MOST, of_tenant: int = OF_TENANT, of_key: int = OF_KEY) -> None:
        self._by_tenant, self._by_key = Budget(most, of_tenant), Budget(most, of_key)

    def begin(self, key_id: UUID, tenant: str) -> ExitStack:
        """Count one more, until what is returned is closed. Raises TooMany."""
        held = ExitStack()
        for budget, whose in ((self._by_key, (tenant, key_id)), (self._by_tenant, tenant)):
            if not budget.take(whose, 1):
                held.close()
                raise TooMany(
                    "Too many downloads of sources at addresses run for this key, its tenant, or in all.",
                    retry_after=AGAIN_SECONDS,
                )
            held.callback(budget.give_back, whose, 1)
        return held
