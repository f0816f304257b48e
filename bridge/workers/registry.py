"""Which workers have asked for jobs: soft state in Redis, whose keys are in bridge/redis_keys.py.

The keys of a tenant expire with its last worker. An API process writes what it saw every 10 s in one go, so that a
poll costs no write of its own. All of it may be lost at any time: only what people are shown depends on it.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast
from uuid import UUID

import gevent
import redis

from bridge.redis_breaker import is_bad_key
from bridge.redis_client import answers, connect
from bridge.redis_keys import RedisKeys
from bridge.workers import facts
from bridge.workers.facts import Facts
from bridge.workers.slots import UNTOLD, Slots

REMEMBERED_SECONDS = 3600  # after which a worker that has not asked is forgotten
PARKED_SECONDS = 30  # after which a process that has not said how many polls it holds counts as holding none
T = TypeVar("T")
AT_ONCE = 100  # workers written or read in one command
MOST = 10000  # workers remembered of one tenant, those seen last: their names are anything that a client sends

# Forgets who was last seen before ARGV[1], and all but the ARGV[2] seen last. Of workers that are forgotten already a
# heartbeat may have told facts: where these are more than that, all are told again within a minute.
FORGET = """
local function forget(members)
  if #members > 0 then
    redis.call('ZREM', KEYS[1], unpack(members))
    redis.call('HDEL', KEYS[2], unpack(members))
    redis.call('HDEL', KEYS[3], unpack(members))
  end
end
forget(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1000))
local over = redis.call('ZCARD', KEYS[1]) - ARGV[2]
while over > 0 do
  forget(redis.call('ZRANGE', KEYS[1], 0, math.min(over, 1000) - 1))
  over = over - 1000
end
if redis.call('HLEN', KEYS[3]) > tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[3])
end
"""


class Worker(NamedTuple):
    """A worker is the pair (key, worker_id)."""

    key_id: UUID
    worker_id: str


class LastPoll(NamedTuple):
    """What a worker was last seen asking for."""

    content_types: Sequence[str]
    denied: Sequence[str]  # asked for too, but its key does not allow them
    at: float  # seconds since 1970
    slots: Slots = UNTOLD
    facts: Facts = facts.UNTOLD


class WorkerRegistry:
    """The soft state as seen from one process. Every method but `note` may raise redis.RedisError."""

    def __init__(self, url: str, prefix: str, process: str) -> None:
        self._keys = RedisKeys(prefix)
        self._process = process
        self._client = connect(url, socket_timeout=2, socket_keepalive=True)
        self._forget = self._client.register_script(FORGET)
        self._news: dict[str, dict[Worker, LastPoll]] = {}
        self._facts: dict[str, dict[Worker, Facts]] = {}
        self.turn = threading.Lock()  # of whoever builds a roster: several at once would add up to a stall

    def note(
        self,
        tenant: str,
        who: Worker,
        content_types: Sequence[str],
        denied: Sequence[str] = (),
        slots: Slots = UNTOLD,
    ) -> None:
        """Note that a worker asks; written with the next `write`. Of too many new workers the last are not noted."""
        news = self._news.setdefault(tenant, {})
        if who in news or len(news) < MOST:
            news[who] = LastPoll(content_types, denied, time.time(), slots)

    def note_facts(self, tenant: str, who: Worker, told: Facts) -> None:
        """Note what a worker says about itself; written with the next `write`, kept until replaced or forgotten."""
        news = self._facts.setdefault(tenant, {})
        if told != facts.UNTOLD and (who in news or len(news) < MOST):
            news[who] = told

    def write(self) -> None:
        """Write to Redis who was noted. What Redis does not take is forgotten: workers ask again."""
        self._write_facts()
        news, self._news = self._news, {}
        for tenant, workers in news.items():
            keys = self._keys.workers(tenant)
            for some in _batches(workers):  # each is sent before the next is built: others run in between
                with self._client.pipeline(transaction=False) as pipe:
                    pipe.zadd(keys[0], {_member(who): asking.at for who, asking in some.items()})
                    pipe.hset(keys[1], mapping={_member(who): _told(asking) for who, asking in some.items()})
                    for key in keys[:2]:
                        pipe.expire(key, REMEMBERED_SECONDS)
                    self._forget(keys=keys, args=[time.time() - REMEMBERED_SECONDS, MOST], client=pipe)
                    self._discard_where_bad(answers(pipe), *keys)

    def _write_facts(self) -> None:
        news, self._facts = self._facts, {}
        for tenant, workers in news.items():
            seen, _, key = self._keys.workers(tenant)
            for some in _batches(workers):
                with self._client.pipeline(transaction=False) as pipe:
                    # A worker that is busy for hours does not poll: its heartbeats keep it remembered.
                    pipe.zadd(seen, {_member(who): time.time() for who in some}, xx=True)
                    pipe.hset(key, mapping={_member(who): facts.stored(told) for who, told in some.items()})
                    pipe.expire(key, REMEMBERED_SECONDS)
                    self._discard_where_bad(answers(pipe), seen, key)

    def read(self, tenant: str) -> dict[Worker, LastPoll]:
        """Return the tenant's workers, those seen last first. Others run meanwhile: there may be MOST."""
        since = time.time() - REMEMBERED_SECONDS
        keys = self._keys.workers(tenant)
        found: dict[Worker, LastPoll] = {}
        try:
            for start in range(0, MOST, AT_ONCE):
                last = self._client.zrevrangebyscore(keys[0], "+inf", since, start, AT_ONCE, withscores=True)
                seen = cast(list[tuple[str, float]], last)
                found.update(self._told(keys, seen))
                if len(seen) < AT_ONCE:
                    break
                gevent.sleep(0)
        except redis.ResponseError as error:
            if not is_bad_key(error):
                raise
            self._client.delete(*keys)
            return {}
        return found

    def _told(self, keys: tuple[str, str, str], seen: Sequence[tuple[str, float]]) -> Iterator[tuple[Worker, LastPoll]]:
        asks, told = ([self._client.hmget(key, [who for who, _ in seen]) for key in keys[1:]]) if seen else ([], [])
        for (member, at), asked, its in zip(seen, asks, told, strict=True):
            if (worker := _worker(member)) and (asking := _asking(asked, at)):
                yield worker, asking._replace(facts=facts.read(its))

    def write_parked(self, polls: Mapping[str, int]) -> None:
        """Write to Redis how many polls of each tenant wait in this process."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(self._keys.parked, self._process, json.dumps([time.time(), polls]))
            pipe.expire(self._keys.parked, PARKED_SECONDS)
            self._discard_where_bad(answers(pipe), self._keys.parked)

    def parked(self, tenant: str) -> int:
        """Return how many polls of the tenant wait in all processes."""
        count = 0
        try:
            noted = self._client.hgetall(self._keys.parked)
        except redis.ResponseError as error:
            if not is_bad_key(error):
                raise
            noted = {}  # the next write discards it
        for process, told in noted.items():
            polls = _polls(told, time.time() - PARKED_SECONDS)
            if polls is None:
                self._client.hdel(self._keys.parked, process)
            else:
                count += polls.get(tenant, 0)
        return count

    def _discard_where_bad(self, done: Sequence[object], *keys: str) -> None:
        """Delete keys that somebody else has overwritten with another type: the next write finds them gone."""
        if any(is_bad_key(answer) for answer in done):
            self._client.delete(*keys)


def _member(who: Worker) -> str:
    return f"{who.key_id}/{who.worker_id}"


def _told(asking: LastPoll) -> str:
    return json.dumps([list(asking.content_types), list(asking.denied), *asking.slots])


def _worker(member: str) -> Worker | None:
    key_id, _, worker_id = member.partition("/")
    try:
        return Worker(UUID(key_id), worker_id)
    except ValueError:
        return None


def _asking(told: str | bytes | None, at: float) -> LastPoll | None:
    """Parse a stored poll; None if this module did not write it: whoever reaches Redis can write anything there."""
    try:
        content_types, denied, *slots = json.loads(told or "")
    except (ValueError, TypeError):
        return None
    lists = isinstance(content_types, list) and isinstance(denied, list)
    if not lists or not all(isinstance(one, str) for one in content_types + denied):
        return None
    numbers = len(slots) == 2 and all(slot is None or type(slot) is int for slot in slots)
    return LastPoll(content_types, denied, at, Slots(*slots) if numbers else UNTOLD)


def _polls(told: str | bytes, since: float) -> dict[str, int] | None:
    """Return how many polls of each tenant a process holds; None if the entry is too old or cannot be read."""
    try:
        at, polls = json.loads(told)
        return {str(tenant): int(count) for tenant, count in polls.items()} if at >= since else None
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None


def _batches(workers: Mapping[Worker, T]) -> Iterator[dict[Worker, T]]:
    every = list(workers.items())
    for start in range(0, len(every), AT_ONCE):
        yield dict(every[start : start + AT_ONCE])
