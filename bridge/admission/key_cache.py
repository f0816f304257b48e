"""Look up the key of a request in memory.

A key that is in use is looked up once, and from then on refreshed beside the requests, all keys in one query every
0.4 s, so that a request makes no query and a revocation takes effect within a second. If the refresh comes too late
(PostgreSQL is slow or away), the request looks the key up itself.
"""

import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import RLock
from uuid import UUID

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from bridge.admission.keys import ensure_bootstrap_key, hash_of, prefix_of
from bridge.background import every, once
from bridge.caller import Caller
from bridge.errors import Unauthorized, Unavailable

log = structlog.get_logger("bridge.admission.keys")

REFRESH_SECONDS = 0.4
REMEMBERED_SECONDS = 1.0  # what was seen longer ago is looked up again
KEPT_SECONDS = 120.0  # a key that nobody sends is forgotten; longer than the longest poll
MOST_REMEMBERED = 10000
TOUCH_SECONDS = 60  # between two writes of a key's last_used_at
REFUSED = "The API key is missing or invalid. Send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`."
_NO_HASH = bytes(32)

COUNTING = text("""
SELECT id, prefix, secret_hash, tenant, scopes, content_types, callback_url, webhook_secret IS NOT NULL AS signs,
  source_fetch, coalesce(last_used_at < now() - make_interval(secs => :touch), true) AS untouched
FROM api_keys
WHERE prefix = ANY(:prefixes) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
""")
TOUCH = text("UPDATE api_keys SET last_used_at = now() WHERE prefix = ANY(:prefixes)")


@dataclass
class _Known:
    """What is remembered about a prefix; a caller of None means that no such key is valid."""

    secret_hash: bytes
    caller: Caller | None
    looked: float  # monotonic, when PostgreSQL said so
    asked: float  # monotonic, when a request carried it
    used: bool = False  # the key itself was sent since the last refresh, not only its prefix


class _Look:
    """A look for several prefixes in one query."""

    def __init__(self) -> None:
        self.prefixes: set[str] = set()
        self.done = False
        self.found: dict[str, _Known] = {}
        self.failed: SQLAlchemyError | Unavailable | None = None

    def find(self, look: Callable[[Iterable[str]], dict[str, _Known]]) -> None:
        try:
            self.found = look(self.prefixes)
        except SQLAlchemyError as error:
            self.failed = error
        except BaseException:  # the request that asked for all was ended: that says nothing about any key
            self.failed = Unavailable("The key could not be looked up; send the request again.")
            raise


class KeyCache:
    """The keys that this process has seen. `gone` is called with the ID of each that was revoked or has expired.

    `bootstrap` is an admin key that is created if it does not exist yet: as soon as PostgreSQL answers, and before a
    caller who sends it is told that it is not valid.
    """

    def __init__(
        self, engine: Engine, gone: Callable[[UUID], None] = lambda _: None, bootstrap: str | None = None
    ) -> None:
        self._engine = engine
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._gone = gone
        self._bootstrap = bootstrap
        self._known: dict[str, _Known] = {}  # valid keys
        self._unknown: dict[str, _Known] = {}  # prefixes of no valid key; they displace none
        self._next = _Look()
        self._turn = RLock()

    def keep(self) -> None:
        """Refresh for as long as this process lives."""
        every(REFRESH_SECONDS, "refresh keys", self.refresh)
        once(REMEMBERED_SECONDS, "make the bootstrap key", self._bootstrapped)

    def remembered(self, key: str) -> Caller | None:
        """Return the caller whose key this is, if this very key was seen valid within the last second; no query."""
        known = self._known.get(prefix_of(key))
        if known is None or known.caller is None:
            return None
        now = time.monotonic()
        if now - known.looked > REMEMBERED_SECONDS or not hmac.compare_digest(hash_of(key), known.secret_hash):
            return None
        known.asked, known.used = now, True
        return known.caller

    def caller(self, key: str) -> Caller:
        """Return the caller whose key this is. Raises Unauthorized, alike for wrong, expired and revoked keys."""
        if (caller := self.remembered(key)) is not None:
            return caller
        prefix = prefix_of(key)
        known = self._known.get(prefix) or self._unknown.get(prefix)
        if known is None or time.monotonic() - known.looked > REMEMBERED_SECONDS:
            known = self._look_up(prefix)
        same = hmac.compare_digest(hash_of(key), known.secret_hash)
        if known.caller is None or not same:
            raise Unauthorized(REFUSED)
        known.used = True
        return known.caller

    def of_prefix(self, prefix: str) -> Caller:
        """Return the caller of a prefix, for a session, whose browser sent the key before. Raises Unauthorized."""
        now = time.monotonic()
        known = self._known.get(prefix)
        if known is None or now - known.looked > REMEMBERED_SECONDS:
            known = self._look_up(prefix)
        if known.caller is None:
            raise Unauthorized(REFUSED)
        known.asked, known.used = now, True
        return known.caller

    def refresh(self) -> None:
        """Refresh all keys in use, in one query. Raises SQLAlchemyError."""
        now = time.monotonic()
        self._known = {prefix: known for prefix, known in self._known.items() if now - known.asked < KEPT_SECONDS}
        self._unknown = {
            prefix: known for prefix, known in self._unknown.items() if now - known.looked < REMEMBERED_SECONDS
        }
        mine = dict(self._known)
        if not mine:
            return
        seen = self._look(mine)
        for prefix, known in mine.items():
            if prefix in seen:
                known.caller, known.looked, known.used = seen[prefix].caller, now, False
            elif self._known.pop(prefix, None) is not None and known.caller is not None:
                log.info("api_key_invalidated", prefix=prefix)
                self._gone(known.caller.key_id)

    def _bootstrapped(self) -> None:
        """Create the bootstrap key if that was not done yet. Raises SQLAlchemyError."""
        if (key := self._bootstrap) is not None:
            with self._engine.begin() as connection:
                ensure_bootstrap_key(connection, key)
            self._bootstrap = None

    def _look_up(self, prefix: str) -> _Known:
        """Ask PostgreSQL about a prefix. Raises SQLAlchemyError.

        One query at a time asks for all that came since the last one was sent: a flood of made-up keys costs a query
        every few milliseconds, whatever its size, and a valid key is found in the midst of it.
        """
        if self._bootstrap is not None and prefix_of(self._bootstrap) == prefix:
            self._bootstrapped()
        look = self._next
        look.prefixes.add(prefix)
        with self._turn:
            if not look.done:
                self._next, look.done = _Look(), True
                look.find(self._look)
        if look.failed is not None:
            raise look.failed
        now = time.monotonic()
        known = look.found.get(prefix)
        if known is None:
            known = _Known(_NO_HASH, None, now, now)
            if len(self._unknown) < MOST_REMEMBERED:
                self._unknown[prefix] = known
        else:
            if len(self._known) >= MOST_REMEMBERED and prefix not in self._known:
                del self._known[min(self._known, key=lambda one: self._known[one].asked)]
            self._known[prefix] = known
        return known

    def _look(self, prefixes: Iterable[str]) -> dict[str, _Known]:
        now = time.monotonic()
        with self._single.connect() as connection:  # each statement by itself, in one round trip instead of three
            rows = connection.execute(COUNTING, {"prefixes": [*prefixes], "touch": TOUCH_SECONDS}).all()
            before = self._known
            used = [row.prefix for row in rows if row.untouched and row.prefix in before and before[row.prefix].used]
            if used:
                connection.execute(TOUCH, {"prefixes": used})
        found = {}
        for row in rows:
            types = None if row.content_types is None else frozenset(row.content_types)
            told = (row.callback_url, row.signs, row.source_fetch)
            who = Caller(row.id, row.tenant, frozenset(row.scopes), types, *told)
            found[row.prefix] = _Known(bytes(row.secret_hash), who, now, now)
        return found
