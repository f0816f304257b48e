"""What the nemesis does to the network between API, Celery, PostgreSQL and Redis, through the proxies."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from tests.chaos.faults import Hands
from tests.support.fault_proxy import FaultProxy
from tests.support.network_faults import Direction, Pattern

Where = Literal["api_postgres", "celery_postgres", "api_redis", "celery_redis"]


def latency(where: Where, seconds: tuple[float, float], hands: Hands) -> Iterator[float]:
    """Every byte comes later."""
    with _healed(hands, where) as proxy:
        proxy.latency(hands.random.uniform(*seconds))
        yield hands.random.uniform(2, 6)
    hands.counts["latency"] += 1


def black_hole(where: Where, hands: Hands) -> Iterator[float]:
    """Nothing comes through, and nobody is told."""
    with _healed(hands, where) as proxy:
        proxy.black_hole()
        yield hands.random.uniform(1, 5)
    hands.counts["black hole"] += 1


def reset(where: Where, hands: Hands) -> Iterator[float]:
    """Every connection ends with RST."""
    getattr(hands.system, where).reset()
    hands.counts["reset"] += 1
    yield 0.0


def cut_after(where: Where, hands: Hands) -> Iterator[float]:
    """Cut some connections in the middle of a message."""
    with _healed(hands, where) as proxy:
        direction: Direction = hands.random.choice(["up", "down"])
        cut = proxy.cut_after(hands.random.randrange(1, 5000), direction, times=3)
        yield hands.random.uniform(1, 3)
        hands.counts["cut after N bytes"] += cut.count


def cut_on(where: Where, pattern: Pattern, hands: Hands, *, before: bool, name: str) -> Iterator[float]:
    """Cut some connections when this passes: before the server sees it, or after it, without the answer."""
    with _healed(hands, where) as proxy:
        cut = proxy.cut_on(pattern, "up", before=before, times=3)
        for _ in range(15):
            yield 0.2
            if cut.count >= 3:
                break
        hands.counts[name] += cut.count


@contextmanager
def _healed(hands: Hands, where: Where) -> Iterator[FaultProxy]:
    proxy: FaultProxy = getattr(hands.system, where)
    try:
        yield proxy
    finally:
        proxy.heal()
