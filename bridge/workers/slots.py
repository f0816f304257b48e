"""What a worker says about its slots."""

from typing import NamedTuple


class Slots(NamedTuple):
    """How many jobs a worker can have at once, as it says itself; never relied on."""

    busy: int | None
    free: int | None


UNTOLD = Slots(None, None)
