"""Where a job's outcomes are told over HTTP, and whose secret signs them; decided when the job is created."""

from functools import cache
from typing import NamedTuple
from uuid import UUID

from bridge.caller import Caller
from bridge.errors import Invalid
from bridge.outgoing.addresses import network
from bridge.outgoing.destination import Allowed, BadAddress
from bridge.settings import Settings


class Callback(NamedTuple):
    """An address, and the key in whose name it is called; both are None where nobody is called."""

    url: str | None = None
    key_id: UUID | None = None


def callback_for(settings: Settings, asks: Caller, url: str | None) -> Callback:
    """Decide whom a job created with this address, or none, calls. Raises Invalid if that can be told without DNS."""
    if url is None:
        # The key's address was checked when it was set.
        return Callback(asks.callback_url, asks.key_id) if asks.callback_url and asks.signs else Callback()
    if not asks.signs:
        raise Invalid({"callback_url": ["Your key has no webhook secret, which signs what is sent: have one made."]})
    check_callback(settings, url)
    return Callback(url, asks.key_id)


def callback_for_batch(settings: Settings, asks: Caller, url: str | None, *, outcome: bool) -> Callback:
    """Do the same for a batch, whose end is reported only where an outcome is asked for. Raises Invalid."""
    if not outcome and url is not None:
        raise Invalid({"callback_url": ["It receives the batch's outcome: ask for that with `outcome`, true."]})
    return callback_for(settings, asks, url) if outcome else Callback()


def check_callback(settings: Settings, url: str) -> None:
    """Check that an address may be called. Raises Invalid."""
    try:
        allowed(settings).destination(url)
    except BadAddress as why:
        raise Invalid({"callback_url": [str(why)]}) from None


def allowed(settings: Settings) -> Allowed:
    """Return the addresses that may be called."""
    return _allowed(settings.webhook_allow, settings.webhook_networks)


@cache  # the settings of a process do not change
def _allowed(patterns: tuple[str, ...], networks: tuple[str, ...]) -> Allowed:
    return Allowed.of(patterns, [network(one) for one in networks])
