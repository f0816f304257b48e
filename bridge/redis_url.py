"""How Redis is addressed: one form in the settings, and the form that Celery needs.

It does without redis-py, which imports ssl: gunicorn reads the settings before gevent patches it.
"""

from typing import NamedTuple
from urllib.parse import unquote

SENTINEL = "sentinel://"


class Service(NamedTuple):
    """A Redis that sentinels know: `sentinel://[:password@]host:port,host:port/name`; the password is Redis' own."""

    sentinels: list[tuple[str, int]]
    name: str
    password: str | None


def service(url: str) -> Service | None:
    """Parse a sentinel:// URL; return None for any other. Raises ValueError if it cannot be read."""
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


def for_celery(url: str) -> str:
    """Return the address as kombu needs it: no unix://, the check of certificates stated, each sentinel named."""
    if url.startswith("unix://"):
        return "redis+socket://" + url[len("unix://") :]
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
    if (found := service(url)) is not None:
        user = url[len(SENTINEL) :].rpartition("@")[0]
        return ";".join(f"{SENTINEL}{user + '@' if user else ''}{host}:{port}" for host, port in found.sentinels)
    return url
