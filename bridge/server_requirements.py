"""What the bridge needs of its PostgreSQL and Redis, and whether they meet it."""

from contextlib import suppress
from typing import NamedTuple

import redis
import structlog
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from bridge.redis_client import connect

log = structlog.get_logger("bridge.server_requirements")

LEAST_POSTGRESQL = 15
LEAST_REDIS = (6, 2)  # BLMOVE, LMOVE; Valkey states with which version of Redis it is compatible
ENCODING = "UTF8"
PATIENCE_SECONDS = 3

# Statements hold documents, because psycopg2 puts parameters into them, and details of errors hold rows.
DISCREET = {
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_statement": "none",
    "auto_explain.log_min_duration": "-1",
    "pgaudit.log": "none",
}
_AS_GOOD = {"log_statement": ("ddl",), "auto_explain.log_min_duration": ("",), "pgaudit.log": ("", "ddl", "role")}
FACTS = text("""
SELECT CAST(current_setting('server_version_num') AS int) / 10000 AS major,
  current_setting('server_version') AS version,
  current_setting('server_encoding') AS encoding, current_database() AS database, session_user AS role
""")
SETTINGS = text("SELECT name, current_setting(name, true) AS value FROM unnest(CAST(:names AS text[])) AS s(name)")


class Finding(NamedTuple):
    """Something that is not as the bridge needs it; `why` is one line that says what to do."""

    fatal: bool  # the bridge cannot work with it
    why: str


def of_postgresql(engine: Engine) -> list[Finding]:
    """Return what is wrong with the database, the fatal first. Raises SQLAlchemyError if it does not answer."""
    with engine.connect() as connection:
        facts = connection.execute(FACTS).one()
        settings = connection.execute(SETTINGS, {"names": list(DISCREET)}).all()
    found = []
    if facts.major < LEAST_POSTGRESQL:
        why = f"PostgreSQL is {facts.version}: the bridge needs {LEAST_POSTGRESQL} or later"
        found.append(Finding(True, why))
    if facts.encoding != ENCODING:
        cure = f"CREATE DATABASE … ENCODING '{ENCODING}' TEMPLATE template0"
        why = f"the database {facts.database} is encoded as {facts.encoding}, the bridge needs {ENCODING}: {cure}"
        found.append(Finding(True, why))
    telling = {
        row.name: row.value
        for row in settings
        if row.value is not None and row.value not in (DISCREET[row.name], *_AS_GOOD.get(row.name, ()))
    }
    if telling:
        now = ", ".join(f"{name} = {value}" for name, value in telling.items())
        cure = " ".join(f"ALTER ROLE \"{facts.role}\" SET {name} = '{DISCREET[name]}';" for name in telling)
        found.append(Finding(False, f"PostgreSQL may write documents into its log ({now}): as a superuser run {cure}"))
    return found


def of_redis(url: str) -> list[Finding]:
    """Return what is wrong with a Redis; what a managed one does not tell counts as right. Raises redis.RedisError."""
    found = []
    version, policy = "", None
    with connect(url, socket_timeout=PATIENCE_SECONDS, protocol=2) as client:  # old ones do not know the third
        client.ping()
        with suppress(redis.ResponseError):
            version = str(client.info("server").get("redis_version", ""))
        with suppress(redis.ResponseError):
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
    if (parts := [int(part) for part in version.split(".")[:2] if part.isdigit()]) and tuple(parts) < LEAST_REDIS:
        least = ".".join(map(str, LEAST_REDIS))
        found.append(Finding(True, f"Redis is {version}: the bridge needs {least} or later, or Valkey"))
    if policy not in (None, "noeviction"):
        why = f"Redis may evict the lists of jobs (maxmemory-policy {policy}): set its maxmemory-policy to noeviction"
        found.append(Finding(False, why))
    return found


def findings(database_url: str | None, redis_url: str | None) -> list[Finding]:
    """Check both over short-lived connections; skip one that is not given or does not answer. Never raises."""
    found = []
    if database_url is not None:
        patient = {"connect_timeout": PATIENCE_SECONDS, "options": f"-c statement_timeout={PATIENCE_SECONDS}s"}
        engine = create_engine(database_url, poolclass=NullPool, connect_args=patient)
        with suppress(SQLAlchemyError):
            found += of_postgresql(engine)
    if redis_url is not None:
        with suppress(redis.RedisError):
            found += of_redis(redis_url)
    return found


def tell(engine: Engine, redis_url: str) -> None:
    """Log what is wrong, for a process that has started without asking. Raises if one does not answer."""
    for fatal, why in [*of_postgresql(engine), *of_redis(redis_url)]:
        (log.error if fatal else log.warning)("server_requirement_missing", why=why)
