"""Clients of Redis, by the address of the settings."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from bridge.redis_address import service


def connect(url: str, **options: Any) -> redis.Redis:
    """A client for `redis://`, `rediss://`, `unix://` or `sentinel://…`.

    Nothing is retried: a repeated LMOVE takes two IDs, a repeated LPUSH queues one twice.
    """
    options = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": 2, "decode_responses": True, **options}
    if (found := service(url)) is not None:
        known = Sentinel(found.sentinels, socket_timeout=2, socket_connect_timeout=2)
        return known.master_for(found.name, password=found.password, **options)
    return redis.Redis.from_url(url, **options)
