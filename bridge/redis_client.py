"""Clients of Redis, by the address of the settings."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from bridge.redis_breaker import is_bad_key
from bridge.redis_url import service


def connect(url: str, **options: Any) -> redis.Redis:
    """Return a client for `redis://`, `rediss://`, `unix://` or `sentinel://…`.

    Nothing is retried: a repeated LMOVE takes two IDs, a repeated LPUSH queues one twice.
    """
    options = {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": 2,
        "decode_responses": True,
        "encoding_errors": "replace",  # a value may hold anything; no ID has such a character
        **options,
    }
    if (found := service(url)) is not None:
        known = Sentinel(found.sentinels, socket_timeout=2, socket_connect_timeout=2)
        client: redis.Redis = known.master_for(found.name, password=found.password, **options)
        return client
    return redis.Redis.from_url(url, **options)


def answers(pipe: Any) -> list[Any]:
    """Return the answers to a pipeline; that of a command that failed because of a bad key is the error.

    Raises redis.RedisError for any other: what Redis refuses to one command it refuses to all.
    """
    done: list[Any] = pipe.execute(raise_on_error=False)
    for answer in done:
        if isinstance(answer, redis.RedisError) and not is_bad_key(answer):
            raise answer
    return done
