"""How many of something a process does at once: for all, of them for a tenant, and of these for a key."""

from contextlib import ExitStack

from bridge.admission.byte_budget import Budget
from bridge.caller import Caller
from bridge.errors import TooMany


class AtOnce:
    """The bound on one kind. `what` names it in the refusal; `retry_after`: seconds until a refused caller retries."""

    def __init__(self, what: str, retry_after: int, *, most: int, of_tenant: int, of_key: int) -> None:
        self._what, self._retry_after = what, retry_after
        self._budget = Budget(most, of_tenant=of_tenant, of_key=of_key)

    def begin(self, asks: Caller) -> ExitStack:
        """Count one more until the returned stack is closed. Raises TooMany."""
        if not self._budget.take(asks.whose, 1):
            why = f"{self._what}: too many at once, of this key, of its tenant or in all."
            raise TooMany(why, retry_after=self._retry_after)
        held = ExitStack()
        held.callback(self._budget.give_back, asks.whose, 1)
        return held


def remote_downloads() -> AtOnce:
    """Return the bound on downloads of sources at addresses: each holds two connections and asks a foreign server."""
    return AtOnce("Downloads of sources at addresses", 5, most=128, of_tenant=64, of_key=32)


def arriving_uploads() -> AtOnce:
    """Return the bound on uploads being received: each holds a connection and the part of a piece that has come."""
    return AtOnce("Uploads that are being received", 2, most=96, of_tenant=64, of_key=16)
