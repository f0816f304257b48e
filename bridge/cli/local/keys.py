"""Keys straight in the database: for the first one, and where no admin key is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.cli.errors import Refused
from bridge.cli.local.database import connection, reachable_engine


def create(
    name: str, scopes: Sequence[str], tenant: str | None, types: Sequence[str] | None, expires: datetime | None
) -> str:
    """Make a key; its text. Raises Refused."""
    from bridge.admission import keys
    from bridge.names import DEFAULT_TENANT

    with connection() as database:
        try:
            return keys.create_key(
                database, name, scopes, tenant=tenant or DEFAULT_TENANT, content_types=types, expires_at=expires
            )
        except ValueError as problem:
            raise Refused(str(problem)) from None


def listed(made_by: str | None) -> list[Mapping[str, Any]]:
    """Every key, or those that the key with this prefix made; as the API tells of them."""
    from bridge.admission import keys

    with connection() as database:
        return [dict(row._mapping) for row in keys.list_keys(database, made_by=made_by)]


def revoke(prefix: str, *, with_made: bool) -> tuple[int, int]:
    """Revoke a key (`with_made`: and those it made, and so on); how many were, and how many jobs are pending again."""
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
        return len(revoked), sum(len(its) for row in rows if row is not None for its in take_from_key(engine, row.id))
