"""The routes that administer keys: of the caller's own tenant, or of every tenant for an admin of `default`."""

import re
from datetime import datetime
from typing import Any

import structlog
from flask import request
from sqlalchemy import Row

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, no_body
from api.http.documented_errors import gives
from api.schemas import keys as schemas
from bridge.admission import keys as core
from bridge.admission.key_makers import administers, make_key
from bridge.cursor import decode_cursor, page_and_cursor
from bridge.errors import NotFound
from bridge.jobs.callbacks import check_callback
from bridge.jobs.remote_sources import check_fetch
from bridge.jobs.revoke_key import revoke
from bridge.names import KEYS_BASE
from bridge.webhook_signature import shown

log = structlog.get_logger("api")
keys = Blueprint("keys", __name__, url_prefix=KEYS_BASE, description="Create, list and revoke keys.")


@keys.route("/", methods=["GET"])
@scope("admin")
@keys.arguments(schemas.KeysQuery(), location="query")
@keys.response(200, schemas.KeyPage())
@gives(keys)
def list_keys(query: dict[str, Any]) -> Any:
    """List the keys, without their secrets; next_cursor opens the next page."""
    rows, cursor = page_of_keys(query["limit"], query["cursor"], query["made_by"])
    return {"keys": rows, "next_cursor": cursor}


def page_of_keys(limit: int, cursor: str | None, made_by: str | None = None) -> tuple[list[Row[Any]], str | None]:
    """Return keys that the caller administers, and the cursor of the next page. Raises Invalid."""
    after = None if cursor is None else decode_cursor(cursor, datetime, str)
    with runtime().engine.connect() as connection:
        rows = core.list_keys(connection, administers(caller()), made_by=made_by, after=after, limit=limit + 1)
    return page_and_cursor(rows, limit, "created_at", "prefix")


@keys.route("/", methods=["POST"])
@scope("admin")
@keys.arguments(schemas.CreateKey())
@keys.response(201, schemas.CreatedKey())
@gives(keys, body=True)
def create_key(asked: dict[str, Any]) -> Any:
    """Create a key with at most the caller's rights. Its secret is shown only once. Several keys may be valid at the
    same time, so that one can replace another."""
    row, key, secret = make(asked)
    log.info("api_key_created", prefix=row.prefix, tenant=row.tenant, by=row.made_by)
    return {**row._mapping, "key": key, "webhook_secret": secret}


def make(asked: dict[str, Any]) -> tuple[Row[Any], str, str | None]:
    """Make the key that a schemas.CreateKey asks for; return its row, the key, and its webhook secret, if it has one.

    Raises Invalid, and what `make_key` raises.
    """
    wanted = (asked["name"], asked["scopes"], asked["tenant"] or caller().tenant, asked["content_types"])
    most, url, secret = runtime().settings.limits.keys, asked["callback_url"], None
    check_fetch(runtime().settings, asked["source_fetch"])
    if url is not None:
        check_callback(runtime().settings, url)
    with runtime().engine.begin() as connection:
        key = make_key(connection, caller(), *wanted, asked["expires_at"], most, url, asked["source_fetch"])
        if url is not None:
            secret = core.change_webhook_secret(connection, core.prefix_of(key))
        row = core.find_key(connection, core.prefix_of(key))
    assert row is not None
    return row, key, None if secret is None else shown(secret)


@keys.route("/<prefix>/webhook-secret", methods=["POST"])
@scope("admin")
@keys.response(200, schemas.WebhookSecret())
@gives(keys, 404, body=True)
def change_webhook_secret(prefix: str) -> Any:
    """Create or replace a key's webhook secret, which is shown only once. For a day, the previous one also signs."""
    no_body(request)
    secret = None
    if re.fullmatch("[A-Za-z0-9_]{1,40}", prefix):
        with runtime().engine.begin() as connection:
            secret = core.change_webhook_secret(connection, prefix, administers(caller()))
    if secret is None:
        raise NotFound("No valid key has this prefix.")
    log.info("webhook_secret_changed", prefix=prefix)
    return {"prefix": prefix, "webhook_secret": shown(secret)}


@keys.route("/<prefix>", methods=["DELETE"])
@scope("admin")
@keys.response(200, schemas.RevokedKey())
@keys.arguments(schemas.RevokeQuery(), location="query")
@gives(keys, 404, body=True)
def revoke_key(query: dict[str, Any], prefix: str) -> Any:
    """Revoke a key, within a second in every API process, and return its workers' jobs to the queue. Idempotent."""
    no_body(request)
    done = revoke(runtime(), caller(), prefix, made=query["made"])
    log.info("api_key_revoked", prefix=prefix, made=done.also, released=done.released, by=done.by)
    return {
        "prefix": prefix,
        "revoked_at": done.key.revoked_at,
        "revoked_by": done.key.revoked_by,
        "released": done.released,
        "also_revoked": done.also,
    }
