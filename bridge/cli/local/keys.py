"""Keys directly in the database: for the first one, and if no admin key is available."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.cli.errors import Refused
from bridge.cli.local.database import connection, reachable_engine


class InDatabase:
    """The keys of the database; `OverHttp` has the same calls for those of a bridge."""

    def create(self, wanted: Mapping[str, Any]) -> tuple[str, str | None]:
        """Make a key; return its text, and its webhook secret if it has an address to call. Raises Refused."""
        from bridge.admission import keys
        from bridge.errors import Invalid
        from bridge.jobs.callbacks import check_callback
        from bridge.jobs.remote_sources import FETCHES, check_fetch
        from bridge.names import DEFAULT_TENANT
        from bridge.settings import load_settings

        fetch, callback_url = wanted.get("source_fetch"), wanted.get("callback_url")
        with connection() as database:
            try:
                if fetch not in (None, *FETCHES):
                    raise Refused(f"--source-fetch is one of {', '.join(FETCHES)}")
                check_fetch(load_settings(), fetch)
                if callback_url is not None:
                    check_callback(load_settings(), callback_url)
                key = keys.create_key(database, **{**wanted, "tenant": wanted.get("tenant") or DEFAULT_TENANT})
            except ValueError as problem:
                raise Refused(str(problem)) from None
            except Invalid as problem:
                raise Refused(problem.detail) from None
            return key, None if callback_url is None else _new_secret(database, keys.prefix_of(key))

    def change_webhook_secret(self, prefix: str) -> str | None:
        """Make a key's webhook secret, or a new one, and return it; None if no such key is valid."""
        with connection() as database:
            return _new_secret(database, prefix)

    def listed(self, made_by: str | None) -> list[Mapping[str, Any]]:
        """Return every key, or those that the key with this prefix made, as the API shows them."""
        from bridge.admission import keys

        with connection() as database:
            return [dict(row._mapping) for row in keys.list_keys(database, made_by=made_by)]

    def revoke(self, prefix: str, *, with_made: bool) -> tuple[int, int]:
        """Revoke a key (`with_made`: and those it made, and so on); return the number of keys, and of jobs put back."""
        from bridge.admission import keys
        from bridge.jobs.release import take_from_key

        with reachable_engine() as engine:
            with engine.begin() as database:
                made = keys.made_from(database, prefix) if with_made else []
                named = [prefix, *made]
                revoked = [one for one in named if keys.revoke_key(database, one)]
                rows = [keys.find_key(database, one) for one in named]
            if not revoked:
                return 0, 0
            held = (its for row in rows if row is not None for its in take_from_key(engine, row.id))
            return len(revoked), sum(map(len, held))


def _new_secret(database: Any, prefix: str) -> str | None:
    from bridge.admission import keys
    from bridge.webhook_signature import shown

    secret = keys.change_webhook_secret(database, prefix)
    return None if secret is None else shown(secret)
