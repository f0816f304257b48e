"""How much a key, a tenant or an address may ask for.

Everything is counted in this process, without a query or a command per request. Once a second the counts are shared
with the other processes through Redis (requests, failures, parked polls) or taken from PostgreSQL (jobs): a limit may
be passed by what arrives within that second. While Redis is away each process counts for itself.
"""

import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from uuid import UUID

import redis

from bridge.admission import usage
from bridge.admission.at_once import arriving_uploads, remote_downloads
from bridge.admission.byte_budget import Budget
from bridge.admission.usage import UsageTable
from bridge.background import every
from bridge.errors import TooMany
from bridge.redis_client import answers, connect
from bridge.redis_keys import RedisKeys
from bridge.runtime import Runtime

SHARE_SECONDS = 1.0
MINUTE = 60
MOST_READ = 32  # large bodies of a key that are read at once in this process
BODIES_BYTES = 24 * 1024 * 1024  # of large bodies that a process works on at once; an object takes several times that
BODY_BYTES = 16 * 1024 * 1024  # of one tenant, or key
ANSWERS_BYTES = 64 * 1024 * 1024  # of large answers of a process that are not sent yet
TENANT_ANSWER_BYTES = 48 * 1024 * 1024
ANSWER_BYTES = 16 * 1024 * 1024  # of one key
_NOTHING: Counter[str] = Counter()
STALE_SECONDS = 10  # after which a silent process counts as having no parked polls
T = TypeVar("T")


class Limits:
    """The limits of one process (BRIDGE_LIMITS). Every method that refuses raises TooMany."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._most = most = runtime.settings.limits
        self._keys = RedisKeys(runtime.settings.redis_prefix)
        self._redis = connect(runtime.settings.require("redis_url"), socket_timeout=1)
        self._per_minute = {"requests": most.requests, "tenant_requests": most.tenant_requests}
        self._used: Counter[tuple[str, str, str]] = Counter()  # (what, whose, minute), here and as far as known
        # By (what, whose): how many requests are left until the next sharing, and how many were after the last one.
        self._left: dict[tuple[str, str], int] = {}
        self._granted: dict[tuple[str, str], int] = {}
        self._unshared: Counter[tuple[str, str, str]] = Counter()  # the part of it that the others do not know yet
        self._parked: Counter[tuple[str, str]] = Counter()  # by (what, whose)
        self._parked_here = 0
        # Creates, results and health always find a place that no poll can take.
        self._most_here = runtime.settings.api_connections * 7 // 8
        self._parked_elsewhere: dict[tuple[str, str], int] = {}
        self._awaited: dict[UUID, Counter[str]] = {}  # by what the polls of a key wait for, how many of them
        # Large bodies being received. Those beyond wait, not refused: a worker may not be able to repeat a result.
        self.reading = Budget(runtime.settings.api_connections, of_tenant=2 * MOST_READ, of_key=MOST_READ)
        self.bodies = Budget(BODIES_BYTES, of_tenant=BODY_BYTES, of_key=BODY_BYTES)
        self.answers = Budget(ANSWERS_BYTES, of_tenant=TENANT_ANSWER_BYTES, of_key=ANSWER_BYTES)
        self.reading_documents = Budget(3, of_tenant=2, of_key=1)  # large ones, a piece of each in memory
        self.arriving = arriving_uploads()
        self.storing = Budget(4, of_tenant=3, of_key=2)  # objects of uploads: a bucket's are held in memory
        self.remote_downloads = remote_downloads()
        self._in_hand: UsageTable[UUID] = UsageTable()
        self._tenants_hand: UsageTable[str] = UsageTable()
        self._waiting: UsageTable[str] = UsageTable()

    def keep(self) -> None:
        """Share and count once a second, for as long as this process lives."""
        every(SHARE_SECONDS, "share limits", self.share)
        every(SHARE_SECONDS, "count what keys have", self.look)

    def request(self, key_id: UUID, tenant: str) -> None:
        """Count a request of a key, and so of its tenant."""
        mine, its = ("requests", str(key_id)), ("tenant_requests", tenant)
        left = self._left.get(mine, self._most.requests)
        all_left = self._left.get(its, self._most.tenant_requests)
        if left <= 0 or all_left <= 0:
            who = "This key" if left <= 0 else "This key's tenant"
            raise TooMany(f"{who} sent too many requests within a minute.", retry_after=_next_minute())
        self._left[mine] = left - 1
        self._left[its] = all_left - 1

    def as_many(self, key_id: UUID, tenant: str, count: int) -> None:
        """Count an admitted request as `count`. All of it is done; what exceeds a limit is charged to later ones."""
        for whose in (("requests", str(key_id)), ("tenant_requests", tenant)):
            self._left[whose] = self._left.get(whose, self._per_minute[whose[0]]) - (count - 1)

    def failure(self, address: str) -> None:
        """Count an invalid key that was sent from an address. Called after the look-up: a valid key is never refused
        because of what came from the same address."""
        counted = ("failures", address, _minute())
        if self._used[counted] >= self._most.failures:
            raise TooMany(
                "Too many requests with an invalid API key came from this address.", retry_after=_next_minute()
            )
        self._unshared[counted] += 1
        self._used[counted] += 1

    def check_parked(self, key_id: UUID, tenant: str, content_types: Sequence[str]) -> None:
        """Check that another poll of a key may wait for these content types. Raises TooMany.

        Each content type that somebody waits for is looked at once a second, so their number must be bounded; they are
        counted in this process alone.
        """
        if self._parked_here >= self._most_here:
            why = "This API process already has too many waiting polls; its other connections are reserved."
            raise TooMany(why, retry_after=_soon(2))
        types, most = self._awaited.get(key_id, _NOTHING), self._most.content_types
        if self._waiting_polls(("parked", str(key_id))) >= self._most.parked:
            raise TooMany("This key already has too many waiting polls.", retry_after=_soon(2))
        if self._waiting_polls(("tenant_parked", tenant)) >= self._most.tenant_parked:
            raise TooMany("This key's tenant already has too many waiting polls.", retry_after=_soon(2))
        if len(types) + len(content_types) > most and len(types.keys() | content_types) > most:
            raise TooMany("The polls of this key already wait for too many content types.", retry_after=_soon(2))

    @contextmanager
    def parked(self, key_id: UUID, tenant: str, content_types: Sequence[str]) -> Iterator[None]:
        """Count a poll that waits for these content types, for the duration of the block."""
        whose = ("parked", str(key_id)), ("tenant_parked", tenant)
        self._parked_here += 1
        self._parked.update(whose)
        awaited = self._awaited.setdefault(key_id, Counter())
        awaited.update(content_types)
        try:
            yield
        finally:
            self._parked_here -= 1
            _uncount(self._parked, whose)
            _uncount(awaited, content_types)
            if whose[0] not in self._parked:
                del self._awaited[key_id]

    def _waiting_polls(self, whose: tuple[str, str]) -> int:
        return self._parked[whose] + self._parked_elsewhere.get(whose, 0)

    def room(self, key_id: UUID, tenant: str) -> int:
        """Return how many more jobs the workers of a key, and of its tenant, may take. Raises TooMany for none."""
        room = self._most.in_hand - self._in_hand.of(key_id).now
        whose = "key"
        if (all_room := self._most.tenant_in_hand - self._tenants_hand.of(tenant).now) < room:
            room, whose = all_room, "tenant"
        if room <= 0:
            why = f"The workers of this {whose} hold too many jobs; finish or release some."
            raise TooMany(why, retry_after=_soon(5))
        return room

    def took(self, key_id: UUID, tenant: str, count: int) -> None:
        """Count jobs that a worker took."""
        self._in_hand.of(key_id).added += count
        self._tenants_hand.of(tenant).added += count

    def submit(self, tenant: str, content_types: list[str]) -> None:
        """Count new jobs of a tenant, one for each content type given."""
        used = self._waiting.of(tenant)
        if used.now + len(content_types) > self._most.pending:
            raise TooMany("This tenant already has too many pending jobs.", retry_after=_soon(10))
        new = set(content_types) - used.types
        if new and len(used.types | new) > self._most.content_types:
            raise TooMany("This tenant already has pending jobs of too many content types.", retry_after=_soon(10))
        used.added += len(content_types)
        used.types |= new

    def share(self) -> None:
        """Tell the other processes what was counted here, and read what they counted."""
        minute = _minute()
        self._spend(minute)
        try:
            self._exchange(minute)
        except redis.RedisError as error:
            self._runtime.mirror.breaker.failed("share limits", error)
        finally:
            self._grant(minute)

    def _spend(self, minute: str) -> None:
        """Count the requests since the last sharing."""
        for (what, whose), left in self._left.items():
            spent = self._granted.get((what, whose), self._per_minute[what]) - left
            self._granted[what, whose] = left
            if spent:
                self._unshared[what, whose, minute] += spent
                self._used[what, whose, minute] += spent

    def _grant(self, minute: str) -> None:
        """Grant what is left of this minute until the next sharing; forget those who asked for nothing."""
        self._used = Counter({counted: used for counted, used in self._used.items() if counted[2] >= minute})
        granted, left = {}, {}
        for counted, before in self._left.items():
            most = self._per_minute[counted[0]]
            meanwhile = self._granted.get(counted, most) - before  # while Redis was asked
            used = self._used[(*counted, minute)]
            if used or meanwhile:
                granted[counted] = max(0, most - used)
                left[counted] = granted[counted] - meanwhile
        self._granted, self._left = granted, left

    def _exchange(self, minute: str) -> None:
        unshared = self._unshared
        # Keys that asked within this minute are looked up again: others may count them now.
        self._unshared = Counter({counted: 0 for counted in unshared if counted[2] == minute})
        if self._runtime.mirror.breaker.away:
            return
        parked = dict(self._parked)
        now = int(time.time())
        with self._redis.pipeline(transaction=False) as pipe:
            for counted, count in unshared.items():
                name = self._keys.limit(counted)
                pipe.incrby(name, count)
                pipe.expire(name, 2 * MINUTE)
            for whose, count in parked.items():
                name = self._keys.limit(whose)
                pipe.hset(name, self._runtime.mirror.process, f"{count}@{now}")
                pipe.expire(name, STALE_SECONDS)
                pipe.hgetall(name)
            done = iter(answers(pipe) if unshared or parked else [])
        for counted in unshared:
            total = next(done)
            next(done)
            if not isinstance(total, int):  # somebody overwrote it: this one is counted here alone
                continue
            self._used[counted] = max(self._used[counted], total + self._unshared[counted])
        self._parked_elsewhere = {}
        for whose in parked:
            next(done)
            next(done)
            told = next(done)
            self._parked_elsewhere[whose] = self._others(told, now) if isinstance(told, dict) else 0

    def look(self) -> None:
        """Count in PostgreSQL the jobs of those who asked lately. Raises SQLAlchemyError."""
        engine = self._runtime.engine
        if keys := self._in_hand.due():
            self._in_hand.look(keys, partial(usage.in_hand, engine))
        for tenant in self._tenants_hand.due():
            self._tenants_hand.look([tenant], partial(usage.held, engine, self._most.tenant_in_hand))
        for tenant in self._waiting.due():
            count = partial(usage.waiting, engine, self._most.pending, self._most.content_types)
            self._waiting.look([tenant], count)

    def _others(self, parked: dict[str, str], now: int) -> int:
        """Return how many polls wait in the other processes."""
        counts = 0
        for process, said in parked.items():
            told = re.fullmatch("([0-9]{1,9})@([0-9]{1,15})", said)  # whoever writes to Redis may leave anything here
            if told and process != self._runtime.mirror.process and now - int(told[2]) < STALE_SECONDS:
                counts += int(told[1])
        return counts


def _uncount(counts: Counter[T], these: Iterable[T]) -> None:
    """Count each once less; forget what reaches 0."""
    for one in these:
        counts[one] -= 1
        if not counts[one]:
            del counts[one]


def _minute() -> str:
    return str(int(time.time()) // MINUTE)


def _next_minute() -> int:
    """Return the seconds until the next minute's window, more for some, so that not all come back at once."""
    return MINUTE - int(time.time()) % MINUTE + random.randint(0, 5)


def _soon(seconds: int) -> int:
    return random.randint(seconds, 2 * seconds)
