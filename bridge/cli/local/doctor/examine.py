"""All checks, one after the other; one that fails does not stop the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import redis
import requests
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from bridge.cli.local import checkout
from bridge.cli.local.doctor import celery_processes, deliveries, machine, postgresql, redis_server, uploads
from bridge.cli.local.doctor.finding import Finding, Level, error, warning
from bridge.settings import Settings
from bridge.version import version

_PASSING = (SQLAlchemyError, redis.RedisError, OperationalError, OSError, checkout.CheckoutError)


class Report(NamedTuple):
    """What was found, and the versions of everything."""

    findings: list[Finding]
    facts: dict[str, str]

    @property
    def status(self) -> int:
        """Return the exit status: 0 nothing, 1 warnings alone, 2 an error."""
        levels = {one.level for one in self.findings}
        return 2 if Level.ERROR in levels else 1 if levels else 0


def examine(settings: Settings, environment: Mapping[str, str]) -> Report:
    """Check everything. Changes nothing, and takes about two seconds if everything answers."""
    found: list[Finding] = []
    facts = {"jobbridge": version()}

    def look(check: str, at: Callable[..., Iterable[Finding]], *given: object) -> bool:
        """Run one check with what it is given; return whether it could be made."""
        try:
            found.extend(at(*given))
        except _PASSING as problem:
            found.append(warning(check, f"It could not be checked: {_first_line(problem)}", "Repair the rest first."))
            return False
        return True

    look("packages", machine.packages)
    look("names", machine.names, environment)
    look("source_roots", machine.source_roots, settings)
    look("data_directory", machine.data_directory, settings)
    look("store", uploads.place, settings)
    look("addresses", deliveries.addresses, settings)
    look("authorities", deliveries.authorities, environment)
    lying = _redis(settings, found, facts)
    _postgresql(settings, found, facts, look, lying)
    if lying is not None:
        look("celery_queue", celery_processes.queues, lying)
        look("continuation_queue", celery_processes.continuation, settings)
    if settings.url is not None:
        found.extend(_api(settings.url))
    return Report(sorted(set(found), key=lambda one: (one.level != Level.ERROR, found.index(one))), facts)


def _redis(settings: Settings, found: list[Finding], facts: dict[str, str]) -> dict[str, int] | None:
    """Check Redis and the broker; return how many messages are in the broker's queues, None if unknown."""
    if settings.redis_url is None or settings.broker_url is None:
        do = "Set it, or start `jobbridge up` in this directory."
        found.append(error("redis", "BRIDGE_REDIS_URL is not set.", do))
        return None
    same = settings.broker_url == settings.redis_url
    servers = {settings.redis_url: "Redis", **({} if same else {settings.broker_url: "The broker"})}
    for url, called in servers.items():
        try:
            found.extend(redis_server.server(url, settings.redis_prefix, called, facts))
        except (redis.RedisError, OSError) as problem:
            do = "Start it, or correct BRIDGE_REDIS_URL and BRIDGE_BROKER_URL; `jobbridge up` brings one of its own."
            found.append(error("redis_away", f"{called} does not answer: {_first_line(problem)}", do))
    try:
        return celery_processes.lying(settings.broker_url)
    except (redis.RedisError, OSError):
        return None


def _postgresql(
    settings: Settings,
    found: list[Finding],
    facts: dict[str, str],
    look: Callable[..., bool],
    lying: dict[str, int] | None,
) -> None:
    if settings.database_url is None:
        do = "Set it, or start `jobbridge up` in this directory."
        found.append(error("database", "BRIDGE_DATABASE_URL is not set.", do))
        return
    engine = postgresql.engine_of(settings.database_url)
    try:
        with engine.connect() as connection:
            look("postgresql", postgresql.server, connection, settings, facts)
    except SQLAlchemyError as problem:
        do = "Start it, or correct BRIDGE_DATABASE_URL: address, database, role, password."
        found.append(error("database_away", f"PostgreSQL cannot be used: {_first_line(problem)}", do))
        return
    if not look("schema", postgresql.schema, engine, facts) or any(one.check == "schema" for one in found):
        return
    with engine.connect() as connection:
        look("outbox", postgresql.gaps, connection)
    with engine.connect() as connection:
        look("webhooks", deliveries.webhooks, connection, settings, lying)
    with engine.connect() as connection:
        look("upload_quota", uploads.quotas, connection, settings)
    if not any(one.check == "store" and one.level is Level.ERROR for one in found):  # else it could not be read
        with engine.connect() as connection:
            look("store_content", uploads.content, connection, settings)
    with engine.connect() as connection:
        if lying is not None:
            look("sweeps", lambda: celery_processes.sweeps(postgresql.ages(connection), lying))
        away = any(one.check in ("redis_away", "redis_writes", "redis") and one.level is Level.ERROR for one in found)
        if settings.redis_url is not None and not away:
            look("mirror", redis_server.mirror, settings.redis_url, settings.redis_prefix, connection)


def _api(url: str) -> list[Finding]:
    try:
        status = requests.get(f"{url.rstrip('/')}/readyz", timeout=10).status_code
    except requests.RequestException as problem:
        return [
            error("api", f"{url} does not answer ({type(problem).__name__}).", "Start `jobbridge api`, or its proxy.")
        ]
    return [] if status == 200 else [error("api", f"{url}/readyz answers {status}.", "Read the API's log.")]


def _first_line(problem: BaseException) -> str:
    told = str(getattr(problem, "orig", None) or problem).strip().splitlines()
    return told[0] if told else type(problem).__name__
