"""How Redis is addressed: one spelling in the settings, and what redis-py and Celery make of it."""

from typing import Any, NamedTuple
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SENTINEL = "sentinel://"


class Service(NamedTuple):
    """A Redis that sentinels know: `sentinel://[:password@]host:port,host:port/name`; the password is Redis' own."""

    sentinels: list[tuple[str, int]]
    name: str
    password: str | None


def service(url: str) -> Service | None:
    """What a sentinel:// URL names; None for any other. Raises ValueError when it cannot be read."""
    if not url.startswith(SENTINEL):
        return None
    place, _, name = url[len(SENTINEL) :].partition("/")
    user, _, hosts = place.rpartition("@")
    pairs = [host.rpartition(":") for host in hosts.split(",")]
    if not name or not all(host and port.isdigit() for host, _, port in pairs):
        raise ValueError("must look like sentinel://host:26379,host:26379/service")
    return Service(
        [(host.strip("[]"), int(port)) for host, _, port in pairs], name, unquote(user.rpartition(":")[2]) or None
    )


def connect(url: str, **options: Any) -> redis.Redis:
    """A client for `redis://`, `rediss://`, `unix://` or `sentinel://…`.

    Nothing is retried: a repeated LMOVE takes two IDs, a repeated LPUSH queues one twice.
    """
    options = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": 2, "decode_responses": True, **options}
    if (found := service(url)) is not None:
        known = Sentinel(found.sentinels, socket_timeout=2, socket_connect_timeout=2)
        return known.master_for(found.name, password=found.password, **options)
    return redis.Redis.from_url(url, **options)


def for_celery(url: str) -> str:
    """The address as kombu spells it: it knows no unix://, asks how a certificate is checked, names each sentinel."""
    if url.startswith("unix://"):
        return "redis+socket://" + url[len("unix://") :]
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
    if (found := service(url)) is not None:
        user = url[len(SENTINEL) :].rpartition("@")[0]
        return ";".join(f"{SENTINEL}{user + '@' if user else ''}{host}:{port}" for host, port in found.sentinels)
    return url
