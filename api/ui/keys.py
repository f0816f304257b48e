"""The page of keys: create, list and revoke."""

import re
from datetime import UTC, datetime
from urllib.parse import urlencode

import structlog
from flask import Response, request

from api.http.access import caller, runtime
from api.http.body import single
from api.routes.keys import make, page_of_keys
from api.schemas.keys import CreateKey, KeysQuery
from api.ui.blueprint import ui
from api.ui.forms import loaded, read_form
from api.ui.render import page
from api.ui.session import go, session, signed_in
from bridge.admission.keys import SCOPES
from bridge.jobs.remote_sources import WORKER
from bridge.jobs.revoke_key import revoke
from bridge.names import DEFAULT_TENANT

log = structlog.get_logger("api.ui")

PER_PAGE = 100


@ui.route("/keys", methods=["GET"])
@signed_in("admin")
def show_keys() -> Response:
    """Show the keys that this one administers."""
    return _page()


def _page(made: str | None = None, secret: str | None = None) -> Response:
    query = loaded(KeysQuery(), {**single(request.args), "limit": str(PER_PAGE)})
    rows, cursor = page_of_keys(PER_PAGE, query["cursor"])
    return page(
        "keys",
        keys=rows,
        now=datetime.now(UTC),
        made=made,
        secret=secret,
        newer=None if cursor is None else urlencode({"cursor": cursor}),
        scopes=SCOPES,
        tenants=caller().tenant == DEFAULT_TENANT,
        by_worker=WORKER if runtime().settings.source_worker_fetch else None,
        own=session().prefix,
    )


@ui.route("/keys", methods=["POST"])
@signed_in("admin")
def do_make_key() -> Response:
    """Create a key; it is shown on this page and never again."""
    form = read_form()
    listed = {name: [one for one in re.split(r"[,\s]+", form.get(name, "")) if one]
              for name in ("scopes", "content_types")}  # fmt: skip
    told = {name: form.get(name, "").strip() for name in ("name", "tenant", "callback_url", "source_fetch")}
    asked = loaded(CreateKey(), {name: value for name, value in {**told, **listed}.items() if value})
    row, key, secret = make(asked)
    log.info("api_key_created", prefix=row.prefix, tenant=row.tenant, by=session().prefix)
    return _page(made=key, secret=secret)


@ui.route("/keys/revoke", methods=["POST"])
@signed_in("admin")
def do_revoke_key() -> Response:
    """Revoke a key, and the keys that it created if asked to."""
    form = read_form()
    done = revoke(runtime(), caller(), form.get("prefix", ""), made=form.get("made") == "true")
    log.info("api_key_revoked", prefix=done.key.prefix, made=done.also, released=done.released, by=done.by)
    more = f" and {done.also} that it had created" if done.also else ""
    return go("/ui/keys", f"Key {done.key.prefix}{more} is revoked; {done.released} jobs are pending again.")
