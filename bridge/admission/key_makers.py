"""Keys made and revoked by keys: none exceeds or outlives the one that made it, and who did it is recorded."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, text

from bridge.admission import keys
from bridge.caller import NO_KEY, Caller
from bridge.errors import Forbidden, Invalid, TooMany, Unauthorized
from bridge.names import DEFAULT_TENANT

MAKER = text("""
SELECT prefix, tenant, scopes, content_types, expires_at FROM api_keys
WHERE id = :id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FOR SHARE
""")
# Two that are made at the same moment are counted one after the other.
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('keys of ' || :tenant, 0))")
LIVE = text("""
SELECT count(*) FROM (
  SELECT FROM api_keys WHERE tenant = :tenant AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
  LIMIT :most
) live
""")


def administers(caller: Caller) -> str | None:
    """Return the tenant whose keys an admin administers; None for every tenant's."""
    return None if caller.tenant == DEFAULT_TENANT else caller.tenant


def make_key(
    connection: Connection,
    maker: Caller,
    name: str,
    scopes: Sequence[str],
    tenant: str,
    content_types: Sequence[str] | None,
    expires_at: datetime | None,
    most: int,
    callback_url: str | None = None,
    source_fetch: str | None = None,
) -> str:
    """Make a key as `maker` and return its text. Unless an end is named, it expires with its maker.

    The maker is read again and locked until the commit: one that is revoked meanwhile makes none. Raises Forbidden,
    Invalid, Unauthorized, and TooMany beyond `most` live keys of the tenant.
    """
    by = keys.BY_NOBODY
    if maker.key_id != NO_KEY:
        row = connection.execute(MAKER, {"id": maker.key_id}).one_or_none()
        if row is None:
            raise Unauthorized("The API key is no longer valid.")
        expires_at = _within(row, scopes, tenant, content_types, expires_at)
        by = row.prefix
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid({"expires_at": ["Must be in the future."]})
    connection.execute(ONE_AT_A_TIME, {"tenant": tenant})
    if (connection.scalar(LIVE, {"tenant": tenant, "most": most}) or 0) >= most:
        raise TooMany(f"Tenant {tenant} has {most} valid keys already; revoke some.", retry_after=60)
    wanted = (name, scopes, tenant, content_types, expires_at)
    return keys.create_key(connection, *wanted, made_by=by, callback_url=callback_url, source_fetch=source_fetch)


def _within(
    maker: Row[tuple[object, ...]],
    scopes: Sequence[str],
    tenant: str,
    content_types: Sequence[str] | None,
    expires_at: datetime | None,
) -> datetime | None:
    """Return the new key's end. Raises Forbidden or Invalid if the key would exceed its maker."""
    if tenant != maker.tenant and maker.tenant != DEFAULT_TENANT:
        raise Forbidden("This key may manage only the keys of its own tenant.")
    if "admin" not in maker.scopes and not set(scopes) <= set(maker.scopes):
        raise Forbidden(f"This key has the scopes {', '.join(sorted(maker.scopes))} only.")
    allowed = maker.content_types
    if allowed is not None and not (content_types is not None and set(content_types) <= set(allowed)):
        raise Forbidden(f"This key is limited to the content types {', '.join(sorted(allowed))}.")
    end: datetime | None = maker.expires_at
    if end is None or expires_at is None:
        return expires_at or end
    if expires_at > end:
        raise Invalid({"expires_at": [f"Must not be later than the end of the key that asks, {end.isoformat()}."]})
    return expires_at


def name_of(connection: Connection, caller: Caller) -> str:
    """Return what is recorded about who revokes."""
    if caller.key_id == NO_KEY:
        return keys.BY_NOBODY
    prefix: str | None = connection.scalar(text("SELECT prefix FROM api_keys WHERE id = :id"), {"id": caller.key_id})
    return prefix or keys.BY_NOBODY
