"""The schedule of faults, a function of the seed alone, and who runs it."""

import heapq
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from tests.chaos import faults as f
from tests.chaos import network as n
from tests.chaos.faults import Fault, Hands
from tests.chaos.history import History, Trouble
from tests.chaos.system import System

# A claim from the mirror, results of one moment, heartbeats, and creates but for a batch or an upload.
COMMIT_THEMSELVES = re.compile(
    rb"EXECUTE (create|claim|complete)_(jobs|under_key)|INSERT INTO remote_jobs|acknowledged_at = coalesce"
)

LOST, CUT_OFF = partial(n.cut_on, before=False), partial(n.cut_on, before=True)

#: Lane → (mean seconds between two of its faults, its faults: name → (weight, fault)).
LANES: dict[str, tuple[float, dict[str, tuple[int, Fault]]]] = {
    "api": (8.0, {
        "kill -9 an API process": (10, partial(f.kill_child, "api")),
        "kill -9 the API": (3, partial(f.kill, "api")),
        "kill -9 the API's master": (1, partial(f.kill_parent, "api")),
        "freeze an API process": (2, partial(f.freeze_child, "api", (1.0, 4.0))),
        "freeze an API process beyond the lease": (1, partial(f.freeze_child, "api", f.BEYOND_LEASE)),
        "SIGTERM the API": (2, partial(f.terminate, "api")),
        "SIGHUP the API": (2, f.reload_api),
    }),
    "background": (7.0, {
        "kill -9 Celery": (3, partial(f.kill, "celery")),
        "kill -9 Celery's parent": (2, partial(f.kill_parent, "celery")),
        "kill -9 a Celery child": (5, partial(f.kill_child, "celery")),
        "freeze Celery": (1, partial(f.freeze, "celery", (2.0, 6.0))),
        "freeze and kill Celery": (2, partial(f.freeze, "celery", (1.0, 3.0), then_kill=True)),
        "SIGTERM Celery": (2, partial(f.terminate, "celery")),
        "kill -9 beat": (3, partial(f.kill, "beat")),
        "SIGTERM beat": (1, partial(f.terminate, "beat")),
        "freeze beat": (1, partial(f.freeze, "beat", (3.0, 8.0))),
        "two beats": (2, f.two_beats),
        "kill -9 the pipeline": (3, partial(f.kill, "pipeline")),
        "kill -9 a pipeline child": (2, partial(f.kill_child, "pipeline")),
        "SIGTERM the pipeline": (1, partial(f.terminate, "pipeline")),
        "freeze the pipeline": (1, partial(f.freeze, "pipeline", (2.0, 8.0))),
        "slow pipeline": (2, f.slow_pipeline),
    }),
    "workers": (10.0, {
        "kill -9 worker 1": (2, partial(f.kill, "worker-1")),
        "kill -9 worker 2": (2, partial(f.kill, "worker-2")),
        "freeze worker 1 beyond the lease": (1, partial(f.freeze, "worker-1", f.BEYOND_LEASE)),
        "SIGTERM worker 2": (1, partial(f.terminate, "worker-2")),
    }),
    "postgres": (22.0, {
        "restart PostgreSQL": (3, partial(f.restart, "postgres", 1.0, "PostgreSQL restarted (immediate)")),
        "kill all backends": (3, f.kill_backends),
        "kill some backends": (2, f.kill_some_backends),
        "freeze PostgreSQL": (1, partial(f.freeze_server, "postgres", (1.0, 3.0))),
    }),
    "redis": (14.0, {
        "restart Redis": (5, partial(f.restart, "redis_server", 4.0, "Redis restarted")),
        "FLUSHALL": (5, f.flush_redis),
        "freeze Redis": (2, partial(f.freeze_server, "redis_server", (2.0, 6.0))),
        "READONLY": (2, f.read_only_redis),
        "OOM": (2, partial(f.refuse, maxmemory="1")),
        "NOREPLICAS": (1, partial(f.refuse, min_replicas_to_write="1")),
        "WRONGTYPE": (1, f.wrong_type),
    }),
    "network": (6.0, {
        "lost COMMIT answers, API": (8, partial(LOST, "api_postgres", b"COMMIT", name="lost COMMIT answers")),
        "lost answers to what commits itself": (
            4, partial(LOST, "api_postgres", COMMIT_THEMSELVES, name="lost answers to what commits itself")),
        "lost COMMIT answers, Celery": (4, partial(LOST, "celery_postgres", b"COMMIT", name="lost COMMIT answers")),
        "COMMIT cut off": (2, partial(CUT_OFF, "api_postgres", b"COMMIT", name="COMMITs cut off")),
        "lost BLMOVE answers": (2, partial(LOST, "api_redis", b"BLMOVE", name="lost BLMOVE answers")),
        "BLMOVE cut off": (1, partial(CUT_OFF, "api_redis", b"BLMOVE", name="BLMOVEs cut off")),
        "lost BRPOP answers": (2, partial(LOST, "celery_redis", b"BRPOP", name="lost BRPOP answers")),
        "BRPOP cut off": (1, partial(CUT_OFF, "celery_redis", b"BRPOP", name="BRPOPs cut off")),
        "slow PostgreSQL": (1, partial(n.latency, "api_postgres", (0.005, 0.05))),
        "slow Redis": (1, partial(n.latency, "api_redis", (0.01, 0.2))),
        "slow broker": (1, partial(n.latency, "celery_redis", (0.01, 0.2))),
        "PostgreSQL in a black hole": (1, partial(n.black_hole, "api_postgres")),
        "Redis in a black hole": (1, partial(n.black_hole, "api_redis")),
        "broker in a black hole": (1, partial(n.black_hole, "celery_redis")),
        "reset PostgreSQL's connections": (1, partial(n.reset, "api_postgres")),
        "reset Redis' connections": (1, partial(n.reset, "api_redis")),
        "reset the broker's connections": (1, partial(n.reset, "celery_redis")),
        "PostgreSQL cut after N bytes": (1, partial(n.cut_after, "api_postgres")),
        "Redis cut after N bytes": (1, partial(n.cut_after, "api_redis")),
    }),
}  # fmt: skip


class Planned(NamedTuple):
    """A fault to come: seconds after the start, and the seed of what is random in it."""

    at: float
    lane: str
    name: str
    seed: str


def schedule(seed: str, seconds: float, pace: float = 1.0) -> list[Planned]:
    """All faults of a run, in order. `pace` stretches the pauses."""
    planned = []
    for lane, (mean, kinds) in LANES.items():
        rng = random.Random(f"{seed}-{lane}")
        at = rng.uniform(0.5, mean)
        while at < seconds:
            (name,) = rng.choices(list(kinds), [weight for weight, _ in kinds.values()])
            planned.append(Planned(at, lane, name, f"{seed}-{lane}-{at:.3f}"))
            at += rng.uniform(0.5, 1.5) * mean * pace
    return sorted(planned)


class Nemesis:
    """Runs a schedule from the main thread. A lane that is late goes on with its next fault when the last has ended."""

    def __init__(self, system: System, history: History) -> None:
        self._system, self._history = system, history
        self.counts: Counter[str] = Counter()
        self.done: Counter[str] = Counter()  # faults by name
        self.held: set[str] = set()
        self._numbers = itertools.count()

    def run(self, planned: list[Planned], seconds: float, each: Callable[[], None]) -> None:
        """Until so many seconds have passed; `each` is called about five times a second. Then heals everything."""
        began = time.monotonic()
        waiting: dict[str, list[Planned]] = {lane: [one for one in planned if one.lane == lane] for lane in LANES}
        under_way: list[tuple[float, int, str, Iterator[float], Trouble]] = []
        try:
            while (now := time.monotonic() - began) < seconds:
                busy = {lane for _, _, lane, _, _ in under_way}
                for lane, left in waiting.items():
                    if left and left[0].at <= now and lane not in busy:
                        one = left.pop(0)
                        heapq.heappush(under_way, (now, next(self._numbers), lane, *self._begin(one)))
                while under_way and under_way[0][0] <= now:
                    _, _, lane, fault, trouble = heapq.heappop(under_way)
                    if (pause := self._step(fault, trouble)) is not None:
                        heapq.heappush(under_way, (now + pause, next(self._numbers), lane, fault, trouble))
                each()
                soonest = under_way[0][0] if under_way else now + 0.2
                time.sleep(min(max(soonest - now, 0.01), 0.2))
        finally:
            for _, _, _, fault, trouble in under_way:
                fault.close()  # type: ignore[attr-defined]
                trouble.ended = time.monotonic()
            self.held.clear()

    def _begin(self, one: Planned) -> tuple[Iterator[float], Trouble]:
        print(f"{time.strftime('%X')}  {one.name}", flush=True)
        self.done[one.name] += 1
        hands = Hands(self._system, random.Random(one.seed), self.counts, self.held)
        return LANES[one.lane][1][one.name][1](hands), self._history.trouble(one.name)

    def _step(self, fault: Iterator[float], trouble: Trouble) -> float | None:
        try:
            return next(fault)
        except StopIteration:
            trouble.ended = time.monotonic()
            return None
