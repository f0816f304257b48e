"""The routes of those who administer keys: those of their own tenant, or of every tenant for an admin of `default`."""

import re
from datetime import UTC, datetime
from typing import Any

import structlog
from flask import request

from api.access import caller, runtime, scope
from api.body import Blueprint, no_body
from api.errors_of import gives
from api.schemas import keys as schemas
from api.schemas.strict import NoParameters
from bridge import keys as core
from bridge.crash_points import reach
from bridge.errors import Forbidden, Invalid, NotFound
from bridge.give_back import take_from_key
from bridge.names import DEFAULT_TENANT, KEYS_BASE
from bridge.transition import follow

log = structlog.get_logger("api")
_UNKNOWN = "The key was not found: no key that you administer has this prefix."
keys = Blueprint("keys", __name__, url_prefix=KEYS_BASE, description="Make, list and revoke keys.")


def _whose() -> str | None:
    """The tenant whose keys the caller administers; None: all."""
    return None if caller().tenant == DEFAULT_TENANT else caller().tenant


@keys.route("/", methods=["GET"])
@scope("admin")
@keys.arguments(NoParameters(), location="query")
@keys.response(200, schemas.KeyList())
@gives(keys)
def list_keys(_: dict[str, Any]) -> Any:
    """List the keys, without their secrets."""
    with runtime().engine.connect() as connection:
        return {"keys": core.list_keys(connection, _whose())}


@keys.route("/", methods=["POST"])
@scope("admin")
@keys.arguments(schemas.CreateKey())
@keys.response(201, schemas.CreatedKey())
@gives(keys, body=True)
def create_key(asked: dict[str, Any]) -> Any:
    """Make a key. Its secret is shown this once. Several may live side by side, so that one can replace another."""
    tenant = asked["tenant"] or caller().tenant
    if _whose() not in (None, tenant):
        raise Forbidden("This key administers the keys of its own tenant only.")
    if asked["expires_at"] is not None and asked["expires_at"] <= datetime.now(UTC):
        raise Invalid({"expires_at": ["Must lie in the future."]})
    allowed = caller().content_types
    types = asked["content_types"]
    if allowed is not None and not (types is not None and allowed.issuperset(types)):
        raise Forbidden(f"This key is limited to the content types {', '.join(sorted(allowed))}.")
    with runtime().engine.begin() as connection:
        key = core.create_key(connection, asked["name"], asked["scopes"], tenant, types, asked["expires_at"])
        row = core.find_key(connection, core.prefix_of(key))
    assert row is not None
    log.info("key created", prefix=row.prefix, tenant=tenant, by=str(caller().key_id))
    return {**row._mapping, "key": key}


@keys.route("/<prefix>", methods=["DELETE"])
@scope("admin")
@keys.response(200, schemas.RevokedKey())
@gives(keys, 404, body=True)
def revoke_key(prefix: str) -> Any:
    """Revoke a key: every API process feels it within a second, and its workers' jobs wait again. Repeating is well."""
    no_body(request)
    if not re.fullmatch("[A-Za-z0-9_]{1,40}", prefix):
        raise NotFound(_UNKNOWN)
    with runtime().engine.begin() as connection:
        core.revoke_key(connection, prefix, _whose())
        row = core.find_key(connection, prefix, _whose())
        reach("revoke.before_commit")
    reach("revoke.after_commit")
    if row is None:
        raise NotFound(_UNKNOWN)
    released = 0
    for taken in take_from_key(runtime().engine, row.id):
        reach("revoke.after_take")
        follow(runtime(), taken, head=True)
        released += len(taken)
    log.info("key revoked", prefix=prefix, released=released, by=str(caller().key_id))
    return {"prefix": prefix, "revoked_at": row.revoked_at, "released": released}
