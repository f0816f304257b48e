"""What the nemesis does to processes and servers: each fault a generator that yields the seconds until its next step.

A fault heals itself at its end, also when it is closed before that. FAULTS says how likely each is within its lane; two
faults of one lane never overlap, those of different lanes do.
"""

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import psutil
import redis

from tests.chaos.system import CONTENT_TYPES, TENANTS, System

BEYOND_LEASE = (11.0, 15.0)  # seconds; the shortest lease is 10 s


@dataclass
class Hands:
    """What a fault works with."""

    system: System
    random: random.Random
    counts: "Counter[str]" = field(default_factory=Counter)  # kills, lost COMMIT answers, …
    held: set[str] = field(default_factory=set)  # processes that a fault has taken, and will start again

    def killed(self, count: int = 1) -> None:
        self.counts["kill -9"] += count


Fault = Callable[[Hands], Iterator[float]]
Server = Literal["postgres", "redis_server"]


def kill(name: str, hands: Hands) -> Iterator[float]:
    """SIGKILL to a process with all its children; started again within a second."""
    with _taken(hands, name):
        hands.system.kill(name)
        hands.killed()
        yield hands.random.random()


def kill_parent(name: str, hands: Hands) -> Iterator[float]:
    """SIGKILL to the parent alone; its orphans go on for a second."""
    with _taken(hands, name):
        hands.system.kill_alone(name)
        hands.killed()
        yield 1.0
        hands.system.kill(name)


def terminate(name: str, hands: Hands) -> Iterator[float]:
    """SIGTERM and a new start, as an operator's restart."""
    with _taken(hands, name):
        hands.system.process(name).terminate()
        for _ in range(100):
            if hands.system.process(name).poll() is not None:
                break
            yield 0.2
        hands.system.kill(name)
        hands.counts["SIGTERM"] += 1


def freeze(name: str, seconds: tuple[float, float], hands: Hands, then_kill: bool = False) -> Iterator[float]:
    """SIGSTOP to a process and its children."""
    with _taken(hands, name, start=then_kill):
        family = _family(hands, name)
        try:
            _signal(family, signal.SIGSTOP)
            yield hands.random.uniform(*seconds)
            if then_kill:
                hands.system.kill(name)
                hands.killed()
        finally:
            _signal(family, signal.SIGCONT)
        hands.counts["SIGSTOP"] += 1


def kill_child(name: str, hands: Hands) -> Iterator[float]:
    """SIGKILL to one process that a master has forked; the master forks another."""
    for child in _one_child(hands, name):
        _signal([child], signal.SIGKILL)
        hands.killed()
    yield 0.0


def freeze_child(name: str, seconds: tuple[float, float], hands: Hands) -> Iterator[float]:
    """SIGSTOP to one forked process, which comes back afterwards."""
    child = _one_child(hands, name)
    try:
        _signal(child, signal.SIGSTOP)
        yield hands.random.uniform(*seconds)
    finally:
        _signal(child, signal.SIGCONT)
    hands.counts["SIGSTOP"] += 1


def reload_api(hands: Hands) -> Iterator[float]:
    """SIGHUP: gunicorn replaces its processes one after the other. Before it has any, the signal ends it."""
    if hands.system.children("api"):
        with suppress(ProcessLookupError):
            hands.system.process("api").send_signal(signal.SIGHUP)
        hands.counts["SIGHUP"] += 1
    yield 3.0


def two_beats(hands: Hands) -> Iterator[float]:
    """Yield a second beat for a while."""
    hands.system.start("beat-2")
    try:
        yield hands.random.uniform(5, 10)
    finally:
        hands.system.kill("beat-2")
        hands.killed()


def slow_pipeline(hands: Hands) -> Iterator[float]:
    """Each delivery takes a while."""
    hands.system.slow.write_text("0.3")
    try:
        yield hands.random.uniform(5, 10)
    finally:
        hands.system.slow.unlink(missing_ok=True)


def restart(server: Server, longest: float, noted: str, hands: Hands) -> Iterator[float]:
    """PostgreSQL's immediate shutdown or SIGKILL to Redis, and a new start on its data after so many seconds."""
    running = getattr(hands.system, server)
    running.kill()
    try:
        yield hands.random.random() * longest
    finally:
        running.start()
    hands.killed()
    hands.counts[noted] += 1


OTHERS = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"


def kill_backends(hands: Hands) -> Iterator[float]:
    """Every connection to PostgreSQL is cut by it."""
    hands.system.sql(f"SELECT pg_terminate_backend(pid) {OTHERS}")
    hands.counts["backends killed"] += 1
    yield 0.0


def kill_some_backends(hands: Hands) -> Iterator[float]:
    """One connection after the other."""
    for _ in range(10):
        hands.system.sql(f"SELECT pg_terminate_backend(pid) FROM (SELECT pid {OTHERS} ORDER BY random() LIMIT 1) one")
        yield 0.2
    hands.counts["backends killed"] += 10


def freeze_server(server: Server, seconds: tuple[float, float], hands: Hands) -> Iterator[float]:
    """No new connections, and no answer of those that are there."""
    pid = getattr(hands.system, server).pid
    with suppress(psutil.NoSuchProcess):
        family = [psutil.Process(pid), *psutil.Process(pid).children()] if pid else []
        try:
            _signal(family, signal.SIGSTOP)
            yield hands.random.uniform(*seconds)
        finally:
            _signal(family, signal.SIGCONT)


def flush_redis(hands: Hands) -> Iterator[float]:
    """Everything in Redis is gone: the mirror and Celery's messages."""
    with hands.system.redis() as client, suppress(redis.RedisError):
        client.flushall()
        hands.counts["FLUSHALL"] += 1
    yield 0.0


def refuse(hands: Hands, **setting: str) -> Iterator[float]:
    """Redis answers, but takes no writes; afterwards the setting is as it was."""
    (name, value), *_ = setting.items()
    with hands.system.redis() as client:
        before = client.config_get(name.replace("_", "-"))
        try:
            client.config_set(name.replace("_", "-"), value)
            yield hands.random.uniform(2, 6)
        finally:
            for given, old in before.items():
                client.config_set(given, old)
    hands.counts["Redis refuses"] += 1


def read_only_redis(hands: Hands) -> Iterator[float]:
    """Redis is the replica of a master that is not there: READONLY."""
    with hands.system.redis() as client:
        try:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            yield hands.random.uniform(2, 6)
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
    hands.counts["Redis refuses"] += 1


def wrong_type(hands: Hands) -> Iterator[float]:
    """Yield a key of the mirror holds something else: WRONGTYPE."""
    queue = f"{hands.random.choice(TENANTS)}:{hands.random.choice(CONTENT_TYPES)}"
    key = f"bridge:{{{queue}}}:pending:normal"
    with hands.system.redis() as client, suppress(redis.RedisError):
        client.set(key, "not a list")
        try:
            yield hands.random.uniform(2, 6)
        finally:
            if client.type(key) == "string":
                client.delete(key)
    hands.counts["wrong type"] += 1


@contextmanager
def _taken(hands: Hands, name: str, *, start: bool = True) -> Iterator[None]:
    """Have a process for the fault alone while this lasts: nobody else starts it; at the end it is started."""
    hands.held.add(name)
    try:
        yield
    finally:
        if start:
            if hands.system.alive(name):
                hands.system.kill(name)
            hands.system.start(name)
        hands.held.discard(name)


def _one_child(hands: Hands, name: str) -> list[psutil.Process]:
    children = sorted(hands.system.children(name), key=lambda child: child.pid)
    return hands.random.sample(children, min(1, len(children)))


def _family(hands: Hands, name: str) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(hands.system.process(name).pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _signal(processes: list[psutil.Process], signum: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signum)
