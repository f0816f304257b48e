"""What the nemesis does to the network between API, Celery, PostgreSQL and Redis, through the proxies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter

from tests.chaos.faults import Fault, Hands
from tests.chaos.system import System
from tests.support.fault_proxy import FaultProxy
from tests.support.network_faults import Direction, Pattern

Where = Callable[[System], FaultProxy]

api_postgres: Where = attrgetter("api_postgres")
celery_postgres: Where = attrgetter("celery_postgres")
api_redis: Where = attrgetter("api_redis")
celery_redis: Where = attrgetter("celery_redis")


def latency(where: Where, seconds: tuple[float, float]) -> Fault:
    """Every byte comes later."""

    def fault(hands: Hands) -> Iterator[float]:
        with _healed(where(hands.system)) as proxy:
            proxy.latency(hands.random.uniform(*seconds))
            yield hands.random.uniform(2, 6)
        hands.counts["latency"] += 1

    return fault


def black_hole(where: Where) -> Fault:
    """Nothing comes through, and nobody is told."""

    def fault(hands: Hands) -> Iterator[float]:
        with _healed(where(hands.system)) as proxy:
            proxy.black_hole()
            yield hands.random.uniform(1, 5)
        hands.counts["black hole"] += 1

    return fault


def reset(where: Where) -> Fault:
    """Every connection ends with RST."""

    def fault(hands: Hands) -> Iterator[float]:
        where(hands.system).reset()
        hands.counts["reset"] += 1
        yield 0.0

    return fault


def cut_after(where: Where) -> Fault:
    """Cut some connections in the middle of a message."""

    def fault(hands: Hands) -> Iterator[float]:
        with _healed(where(hands.system)) as proxy:
            direction: Direction = hands.random.choice(["up", "down"])
            cut = proxy.cut_after(hands.random.randrange(1, 5000), direction, times=3)
            yield hands.random.uniform(1, 3)
            hands.counts["cut after N bytes"] += cut.count

    return fault


def cut_on(where: Where, pattern: Pattern, *, before: bool, name: str, times: int = 3) -> Fault:
    """Cut some connections when this passes: before the server sees it, or after it, without the answer."""

    def fault(hands: Hands) -> Iterator[float]:
        with _healed(where(hands.system)) as proxy:
            cut = proxy.cut_on(pattern, "up", before=before, times=times)
            for _ in range(15):
                yield 0.2
                if cut.count >= times:
                    break
            hands.counts[name] += cut.count

    return fault


@contextmanager
def _healed(proxy: FaultProxy) -> Iterator[FaultProxy]:
    try:
        yield proxy
    finally:
        proxy.heal()
