"""The Redis mirror of pending jobs: the only module that talks to Redis about jobs.

Its keys are in bridge/redis_keys.py. All of it is a hint. A command may be lost or repeated; PostgreSQL decides at the
claim, so a missing ID costs time and a surplus one nothing. Whoever reaches Redis can write anything into these keys: a
key that is not a list of IDs blocks only itself, until repair deletes it. Every method may raise redis.RedisError
unless its docstring says otherwise.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import redis

from bridge import redis_breaker
from bridge.crash_points import reach
from bridge.mirror.scripts import DROP, PUT_BACK, TAKE
from bridge.mirror.wrong_type_keys import discard_bad_keys
from bridge.queues import RANKS, Entry, Queue, is_job_id
from bridge.redis_breaker import RedisBreaker
from bridge.redis_client import answers, connect
from bridge.redis_keys import QueueList, RedisKeys, has_valid_names
from models.job_state import Priority

SUSPECT_SECONDS = 300  # far above the time between two looks at the claimed lists
FEW = 4  # IDs of one list for which LREM is quicker


class Taken(NamedTuple):
    """The entries taken from the mirror."""

    entries: list[Entry]
    whole: bool  # else claims must come from PostgreSQL too: the epoch is missing, or a queue's list is not a list


class Mirror:
    """The mirror as seen from one process (`process` names it in the claimed lists)."""

    def __init__(self, url: str, prefix: str, process: str) -> None:
        self.keys = RedisKeys(prefix)
        self.process = process
        self._url = url
        self._client = connect(url, socket_timeout=2, socket_keepalive=True)
        self.breaker = RedisBreaker()

    def push(self, entries: Iterable[Entry], *, head: bool = False) -> bool:
        """Mirror jobs after their commit, at the tail or the head. Never raises; return False if repair must do it."""
        lists = self._by_list(entries)
        if not lists or self.breaker.away:
            return not lists
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for key, ids in lists.items():
                    (pipe.rpush if head else pipe.lpush)(key, *ids)
                done = answers(pipe)
        except redis.RedisError as error:
            self.breaker.failed("push", error)
            return False
        self.breaker.answered("push")
        return not any(isinstance(one, redis.RedisError) for one in done)

    def drop(self, entries: Iterable[Entry]) -> None:
        """Take jobs that are no longer pending out of the mirror, as far as that is cheap. Never raises."""
        lists = self._by_list(entries)
        if not lists or self.breaker.away:
            return
        try:
            self._remove(lists)
        except redis.RedisError as error:
            self.breaker.failed("drop", error)

    def _remove(self, lists: Mapping[str, Sequence[str]]) -> None:
        """Take these IDs out of these lists."""
        with self._client.pipeline(transaction=False) as pipe:
            for key, ids in lists.items():
                if len(ids) > FEW and len(set(ids)) == len(ids):  # DROP takes each out once
                    pipe.eval(DROP, 1, key, *ids)
                else:
                    for job_id in ids:
                        pipe.lrem(key, -1, job_id)
            answers(pipe)

    def _by_list(self, entries: Iterable[Entry], *, claimed: bool = False) -> dict[str, list[str]]:
        lists: dict[str, list[str]] = {}
        for queue, priority, job_id in entries:
            key = self.keys.claimed(queue, self.process) if claimed else self.keys.pending(queue, priority)
            lists.setdefault(key, []).append(job_id)
        return lists

    def lengths(self, queues: Iterable[Queue]) -> dict[Queue, int]:
        """Return how many IDs wait in each queue."""
        names = list(queues)
        with self._client.pipeline(transaction=False) as pipe:
            for queue in names:
                for priority in Priority:
                    pipe.llen(self.keys.pending(queue, priority))
            # A bad key counts as one, so that it is looked at: taking then shows that PostgreSQL has to be asked.
            counts = (count if isinstance(count, int) else 1 for count in answers(pipe))
            return {queue: sum(next(counts) for _ in Priority) for queue in names}

    def take(self, wanted: dict[Queue, int]) -> Taken:
        """Move up to the wanted number of IDs of each queue into this process' claimed lists, heads first.

        Nothing is taken if the epoch is missing. Raises redis.RedisError also if Redis answers but takes no writes.
        """
        with self._client.pipeline(transaction=False) as pipe:
            pipe.exists(self.keys.epoch)
            if not wanted:
                pipe.eval(TAKE, 2, *2 * [self.keys.probe], 1)
            for queue, count in wanted.items():
                lists = [self.keys.pending(queue, priority) for priority in Priority]
                keys = [*lists, self.keys.claimed(queue, self.process)]
                pipe.eval(TAKE, len(keys), *keys, count)
            epoch, *taken = answers(pipe)
        self.breaker.answered(redis_breaker.TAKE)
        found: dict[Queue, list[Any]] = dict(zip(wanted, taken, strict=False))
        entries = [
            Entry(queue, RANKS[rank], job_id)
            for queue, flat in found.items()
            if isinstance(flat, list)
            for rank, job_id in zip(flat[::2], flat[1::2], strict=True)
            if is_job_id(job_id)  # the rest stays in the claimed list until repair forgets it
        ]
        if not epoch:
            self.put_back(entries)
            return Taken([], False)
        return Taken(entries, all(isinstance(flat, list) for flat in found.values()))

    def serves(self) -> bool:
        """Return whether claims may come from the mirror. Raises redis.RedisError if Redis takes no writes."""
        return self.take({}).whole

    def settle(self, entries: Sequence[Entry]) -> None:
        """Forget IDs that are dealt with: claimed in PostgreSQL, or no longer pending."""
        self._remove(self._by_list(entries, claimed=True))

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Give taken IDs back to the head; the one that was taken first comes first again."""
        with self._client.pipeline(transaction=False) as pipe:
            for entry in reversed(entries):
                keys = [self.keys.claimed(entry.queue, self.process), self.keys.pending(entry.queue, entry.priority)]
                pipe.eval(PUT_BACK, len(keys), *keys, entry.job_id)
            if entries:
                answers(pipe)

    def listener(self, queue: Queue, priority: Priority, block_seconds: float) -> "Listener":
        """Return a listener for one list, with a separate blocking connection."""
        client = connect(self._url, socket_timeout=block_seconds + 5, socket_keepalive=True, max_connections=1)
        return Listener(
            client, self.keys.pending(queue, priority), self.keys.claimed(queue, self.process), block_seconds
        )

    # What repair needs.

    def discard_bad_keys(self) -> int:
        """Delete keys that are not lists where lists should be; return how many."""
        return discard_bad_keys(self._client, self.keys)

    def set_epoch(self) -> None:
        self._client.delete(self.keys.rebuilt)  # first: a mark that stayed would cut the next rebuild short
        self._client.set(self.keys.epoch, str(int(time.time())))

    def lock_rebuild(self, seconds: int) -> bool:
        """Take the lock of the rebuild, which ends by itself; return whether this process may rebuild now."""
        return bool(self._client.set(self.keys.rebuilding, self.process, nx=True, ex=seconds))

    def keep_rebuild(self, seconds: int) -> bool:
        """Renew the lock; return False if it has ended meanwhile, and another process may rebuild."""
        key = self.keys.rebuilding
        return self._client.get(key) == self.process and bool(self._client.expire(key, seconds))

    def unlock_rebuild(self) -> None:
        """Release the lock, unless another process holds it by now."""
        if self._client.get(self.keys.rebuilding) == self.process:
            self._client.delete(self.keys.rebuilding)

    def clear(self, queue: Queue, priority: Priority) -> None:
        """Empty a pending list."""
        self._client.delete(self.keys.pending(queue, priority))

    def push_older(self, queue: Queue, priority: Priority, ids: Sequence[str], mark: str) -> None:
        """Add jobs at the head (the last of `ids` becomes the head), then note how far the rebuild has come."""
        self._client.rpush(self.keys.pending(queue, priority), *ids)
        reach("rebuild.before_mark")
        self._client.set(self.keys.rebuilt, mark)

    def rebuilt(self) -> str | None:
        """Return the last mark of an unfinished rebuild, or None."""
        return cast(str | None, self._client.get(self.keys.rebuilt))

    def heads(self, queue: Queue, count: int) -> dict[Priority, list[str]]:
        """Return the `count` IDs nearest to the head of each list, head first."""
        with self._client.pipeline(transaction=False) as pipe:
            for priority in Priority:
                pipe.lrange(self.keys.pending(queue, priority), -count, -1)
            return {priority: ids[::-1] for priority, ids in zip(Priority, pipe.execute(), strict=True)}

    def queues(self) -> set[Queue]:
        """Return the queues that have a pending list."""
        return {found.queue for found in self._lists() if found.kind == "pending"}

    def left_over(self, count: int) -> list[tuple[str, Entry]]:
        """Return (claimed list, entry) of up to `count` IDs of each process that were in its claimed list at two looks.

        Claiming takes milliseconds: what was there at two looks was left behind by a process that died, or by a lost
        command. The priority is not known here.
        """
        before = self._client.smembers(self.keys.suspects)
        seen: list[tuple[str, str, Entry]] = []
        for queue, kind, process in self._lists():
            if kind == "claimed":
                key = self.keys.claimed(queue, process)
                job_ids = cast(list[str], self._client.lrange(key, -count, -1))
                seen += [(f"{key} {job_id}", key, Entry(queue, Priority.NORMAL, job_id)) for job_id in job_ids]
        with self._client.pipeline() as pipe:
            pipe.delete(self.keys.suspects)
            if seen:
                pipe.sadd(self.keys.suspects, *(mark for mark, _, _ in seen))
                pipe.expire(self.keys.suspects, SUSPECT_SECONDS)
            pipe.execute()
        return [(key, entry) for mark, key, entry in seen if mark in before]

    def forget(self, left_over: Iterable[tuple[str, Entry]]) -> None:
        """Remove these from their claimed lists."""
        with self._client.pipeline(transaction=False) as pipe:
            for key, entry in left_over:
                pipe.lrem(key, -1, entry.job_id)
            pipe.execute()

    def _lists(self) -> Iterable[QueueList]:
        for key in self._client.scan_iter(self.keys.any_queue, count=1000, _type="list"):
            found = self.keys.queue_list(key)
            if found and has_valid_names(found.queue):
                yield found


class Listener:
    """Waits for one list."""

    def __init__(self, client: redis.Redis, source: str, target: str, seconds: float) -> None:
        self._client, self._source, self._target, self._seconds = client, source, target, seconds

    def wait(self) -> str | None:
        """Return the next ID, moved into the claimed list; None after the block time. Raises redis.RedisError."""
        caught = self._client.blmove(self._source, self._target, self._seconds, "RIGHT", "LEFT")  # type: ignore[arg-type]
        return caught if isinstance(caught, str) and is_job_id(caught) else None

    def close(self) -> None:
        """Close the connection, and end a wait in progress with it."""
        self._client.close()
        self._client.connection_pool.disconnect()
