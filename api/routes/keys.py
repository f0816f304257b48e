"""The routes of those who administer keys: those of their own tenant, or of every tenant for an admin of `default`."""

import re
from datetime import datetime
from typing import Any

import structlog
from flask import request

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, no_body
from api.http.documented_errors import gives
from api.schemas import keys as schemas
from bridge.admission import keys as core
from bridge.admission.key_makers import administers, make_key, name_of
from bridge.crash_points import reach
from bridge.cursor import cut, opened
from bridge.errors import NotFound
from bridge.jobs.release import take_from_key
from bridge.jobs.transition import follow
from bridge.names import KEYS_BASE

log = structlog.get_logger("api")
_UNKNOWN = "The key was not found: no key that you administer has this prefix."
keys = Blueprint("keys", __name__, url_prefix=KEYS_BASE, description="Make, list and revoke keys.")


@keys.route("/", methods=["GET"])
@scope("admin")
@keys.arguments(schemas.KeysQuery(), location="query")
@keys.response(200, schemas.KeyPage())
@gives(keys)
def list_keys(query: dict[str, Any]) -> Any:
    """List the keys, without their secrets; next_cursor opens the next page."""
    after = None if query["cursor"] is None else opened(query["cursor"], datetime, str)
    limit = query["limit"]
    with runtime().engine.connect() as connection:
        whose, maker = administers(caller()), query["made_by"]
        rows = core.list_keys(connection, whose, made_by=maker, after=after, limit=limit + 1)
    rows, cursor = cut(rows, limit, "created_at", "prefix")
    return {"keys": rows, "next_cursor": cursor}


@keys.route("/", methods=["POST"])
@scope("admin")
@keys.arguments(schemas.CreateKey())
@keys.response(201, schemas.CreatedKey())
@gives(keys, body=True)
def create_key(asked: dict[str, Any]) -> Any:
    """Make a key, no more than this one. Its secret is shown this once. Several may live side by side, so that one can
    replace another."""
    wanted = (asked["name"], asked["scopes"], asked["tenant"] or caller().tenant, asked["content_types"])
    most = runtime().settings.limits.keys
    with runtime().engine.begin() as connection:
        key = make_key(connection, caller(), *wanted, asked["expires_at"], most)
        row = core.find_key(connection, core.prefix_of(key))
    assert row is not None
    log.info("key created", prefix=row.prefix, tenant=row.tenant, by=row.made_by)
    return {**row._mapping, "key": key}


@keys.route("/<prefix>", methods=["DELETE"])
@scope("admin")
@keys.response(200, schemas.RevokedKey())
@keys.arguments(schemas.RevokeQuery(), location="query")
@gives(keys, 404, body=True)
def revoke_key(query: dict[str, Any], prefix: str) -> Any:
    """Revoke a key: every API process feels it within a second, and its workers' jobs wait again. Repeating is well."""
    no_body(request)
    whose = administers(caller())
    if not re.fullmatch("[A-Za-z0-9_]{1,40}", prefix):
        raise NotFound(_UNKNOWN)
    with runtime().engine.begin() as connection:
        row = core.find_key(connection, prefix, whose)
        if row is None:
            raise NotFound(_UNKNOWN)
        also = core.made_from(connection, prefix, whose) if query["made"] else []
        by = name_of(connection, caller())
        also = [one for one in also if core.revoke_key(connection, one, whose, by=by)]
        core.revoke_key(connection, prefix, whose, by=by)
        revoked = [core.find_key(connection, one, whose) for one in (prefix, *also)]
        reach("revoke.before_commit")
    reach("revoke.after_commit")
    released = 0
    for key in filter(None, revoked):
        for taken in take_from_key(runtime().engine, key.id):
            reach("revoke.after_take")
            follow(runtime(), taken, head=True)
            released += len(taken)
    log.info("key revoked", prefix=prefix, made=len(also), released=released, by=by)
    assert revoked[0] is not None
    return {
        "prefix": prefix,
        "revoked_at": revoked[0].revoked_at,
        "revoked_by": revoked[0].revoked_by,
        "released": released,
        "also_revoked": len(also),
    }
