"""API keys: `jb_` + 8 characters of prefix + `_` + 256 random bits. Only the SHA-256 is stored."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, insert, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from uuid_utils.compat import uuid7

from bridge.caller import NO_KEY
from bridge.names import CONTENT_TYPE_PATTERN, DEFAULT_TENANT, TENANT_PATTERN
from bridge.webhook_signature import new_secret
from models.key import api_keys

SCOPES = ("submit", "work", "read", "admin")
# What made or revoked a key, if not a key; no prefix looks like one of these.
BY_COMMAND = "command"  # `jobbridge keys`, or another process with the database in its hands
BY_BOOTSTRAP = "bootstrap"  # BRIDGE_BOOTSTRAP_KEY
BY_NOBODY = "no-key"  # a request with BRIDGE_AUTH=off

_c = api_keys.c
KeyRow = Row[Any]


def create_key(
    connection: Connection,
    name: str,
    scopes: Sequence[str],
    tenant: str = DEFAULT_TENANT,
    content_types: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    *,
    made_by: str = BY_COMMAND,
    callback_url: str | None = None,
    source_fetch: str | None = None,
) -> str:
    """Make a key; return its text, this once: it is not stored. Raises ValueError naming what is wrong.

    `callback_url`: an address that may be called, for its jobs that name none. `source_fetch`: who fetches the sources
    at addresses of its jobs that do not say.
    """
    _check(name, scopes, tenant, content_types)
    key = f"jb_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    values = {
        **_row(key, name, scopes, tenant, made_by),
        "content_types": None if content_types is None else sorted(set(content_types)),
        "expires_at": expires_at,
        "callback_url": callback_url,
        "source_fetch": source_fetch,
    }
    connection.execute(insert(api_keys).values(values))
    return key


def ensure_bootstrap_key(connection: Connection, key: str) -> None:
    """Create the admin key BRIDGE_BOOTSTRAP_KEY unless it exists."""
    values = _row(key, "bootstrap", ["admin"], DEFAULT_TENANT, BY_BOOTSTRAP)
    connection.execute(upsert(api_keys).values(values).on_conflict_do_nothing(index_elements=[_c.prefix]))


def list_keys(
    connection: Connection,
    tenant: str | None = None,
    *,
    made_by: str | None = None,
    after: tuple[Any, ...] | None = None,
    limit: int | None = None,
) -> list[KeyRow]:
    """Return the keys of a tenant, or all, revoked ones too, oldest first, after the place (created_at, prefix).

    `made_by`: only what the key with this prefix made.
    """
    which = _of(tenant)
    if made_by is not None:
        which.append(_c.made_by == made_by)
    if after is not None:
        which.append(tuple_(_c.created_at, _c.prefix) > tuple_(*after))
    return list(connection.execute(select(api_keys).where(*which).order_by(_c.created_at, _c.prefix).limit(limit)))


def find_key(connection: Connection, prefix: str, tenant: str | None = None) -> KeyRow | None:
    """Return the key with this prefix, revoked or not, if it is this tenant's (None: any tenant's), else None."""
    return connection.execute(select(api_keys).where(_c.prefix == prefix, *_of(tenant))).one_or_none()


def ids_of_tenant(connection: Connection, tenant: str) -> list[UUID]:
    """Return the IDs of every key that was ever made for a tenant, and of the caller without keys."""
    return [*connection.scalars(select(_c.id).where(_c.tenant == tenant)), NO_KEY]


def made_from(connection: Connection, prefix: str, tenant: str | None = None) -> list[str]:
    """Return the prefixes of the keys made by the key with this prefix, of those they made, and so on; not its own."""
    made = select(_c.prefix).where(_c.made_by == prefix, *_of(tenant)).cte("made", recursive=True)
    made = made.union(select(_c.prefix).join(made, _c.made_by == made.c.prefix).where(*_of(tenant)))
    return [found for found in connection.scalars(select(made.c.prefix)) if found != prefix]


def revoke_key(connection: Connection, prefix: str, tenant: str | None = None, *, by: str = BY_COMMAND) -> int:
    """Revoke the key with this prefix; return 0 if none is valid. Takes effect in every API process within a second.

    What its workers hold is given back by `bridge.jobs.release.take_from_key`, once this is committed.
    """
    live = (_c.prefix == prefix, _c.revoked_at.is_(None), *_of(tenant))
    return connection.execute(update(api_keys).where(*live).values(revoked_at=text("now()"), revoked_by=by)).rowcount


def change_webhook_secret(connection: Connection, prefix: str, tenant: str | None = None) -> bytes | None:
    """Make a key's webhook secret, or a new one, and return it; None if no such key is valid.

    The previous one signs beside it for a day, so that its receivers can be given the new one without a gap.
    """
    secret = new_secret()
    live = (_c.prefix == prefix, _c.revoked_at.is_(None), *_of(tenant))
    values = {"webhook_secret": secret, "webhook_secret_before": _c.webhook_secret, "webhook_secret_at": text("now()")}
    return secret if connection.execute(update(api_keys).where(*live).values(values)).rowcount else None


def signing_key(connection: Connection, prefix: str, tenant: str) -> KeyRow | None:
    """Return the tenant's key with this prefix if it is valid and has a webhook secret, else None."""
    counts = (_c.revoked_at.is_(None), (_c.expires_at.is_(None)) | (_c.expires_at > text("now()")))
    which = (_c.prefix == prefix, *_of(tenant), *counts, _c.webhook_secret.isnot(None))
    return connection.execute(select(api_keys).where(*which)).one_or_none()


def _of(tenant: str | None) -> list[ColumnElement[bool]]:
    return [] if tenant is None else [_c.tenant == tenant]


def prefix_of(key: str) -> str:
    """Return what a key is looked up by: its public part, or part of the hash of a key that somebody else chose."""
    return public_prefix(key) or "boot_" + hashlib.sha256(key.encode()).hexdigest()[:16]


def public_prefix(key: str) -> str | None:
    """Return the public part of a key of ours, or of what looks like one; None for anything else."""
    match = re.match(r"(jb_[0-9a-f]{8})_", key)
    return match.group(1) if match else None


def hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _row(key: str, name: str, scopes: Sequence[str], tenant: str, made_by: str) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "prefix": prefix_of(key),
        "secret_hash": hash_of(key),
        "name": name,
        "tenant": tenant,
        "scopes": sorted(set(scopes)),
        "made_by": made_by,
    }


def tenant_has_key(connection: Connection, tenant: str) -> bool:
    """Return whether a key was ever made for this tenant, valid or not."""
    return connection.scalar(select(_c.id).where(_c.tenant == tenant).limit(1)) is not None


def _check(name: str, scopes: Sequence[str], tenant: str, content_types: Sequence[str] | None) -> None:
    if not 1 <= len(name) <= 100 or "\x00" in name:
        raise ValueError("the name must have 1 to 100 characters")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ValueError(f"scopes must be some of {', '.join(SCOPES)}")
    if not re.fullmatch(TENANT_PATTERN, tenant):
        raise ValueError("the tenant must be 1 to 50 characters of a-z 0-9 . _ -")
    if content_types is not None and not content_types:
        raise ValueError("the list of content types is empty; leave it out to allow all")
    for content_type in content_types or ():
        if not re.fullmatch(CONTENT_TYPE_PATTERN, content_type):
            raise ValueError(f"content type {content_type!r} must be 1 to 50 characters of a-z 0-9 . _ -")
