"""Sessions: a browser signed in with a key has a cookie that only this bridge can have signed.

The cookie names the key by its public prefix and says since when; the key itself is not in it. Each request checks that
the key is still valid, so revoking it ends its sessions within a second.
"""

import hmac
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import structlog
from flask import Response, current_app, g, redirect, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from api.http.access import client_address, limits, runtime, whose_key
from api.http.connections import prove
from api.http.local_only import from_another_site, refuse_web_pages
from api.http.parts import parts
from api.ui.forms import read_form
from bridge.admission.keys import prefix_of
from bridge.admission.session_secret import session_secret
from bridge.caller import Caller
from bridge.errors import Forbidden, Unauthorized

log = structlog.get_logger("api.ui")

COOKIE = "bridge_session"
SAID = "bridge_said"  # one sentence for the next page
IDLE_SECONDS = 3600  # an idle session ends
LONGEST_SECONDS = 12 * 3600  # and so does any other
RENEW_SECONDS = 300
PATH = "/ui"


class Session(NamedTuple):
    """A browser that is signed in."""

    caller: Caller
    prefix: str  # of its key; empty with BRIDGE_AUTH=off
    began: int  # seconds since 1970

    def may(self, scope: str) -> bool:
        return self.caller.may(scope)

    @property
    def csrf(self) -> str:
        """The token that each form of this session carries and no page of another site can know."""
        return hmac.digest(_secret(), f"csrf {self.prefix} {self.began}".encode(), "sha256").hex()


class NotSignedIn(Exception):
    """The browser has no session, or one that has ended."""


def session() -> Session:
    """Return the session of this request, inside a view that `signed_in` guards."""
    return cast(Session, g.ui_session)


def signed_in(*scopes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Admit only sessions whose key has one of these scopes; a POST must carry the session's token too."""

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            g.ui_session = _current()
            g.caller = g.ui_session.caller
            prove()
            limits().request(g.caller.key_id, g.caller.tenant)
            if not any(g.caller.may(one) for one in scopes):
                log.warning("api_key_scope_missing", key_id=str(g.caller.key_id), route=request.endpoint, scopes=scopes)
                raise Forbidden(f"The key of this session lacks the scope {' or '.join(scopes)}.")
            if request.method == "POST":
                _from_our_page(g.ui_session)
            return view(*args, **kwargs)

        guarded.__dict__["scopes"] = scopes
        return guarded

    return guard


def sign_in(key: str) -> Response:
    """Begin a session for this key. Raises Unauthorized, TooMany, Forbidden."""
    if from_another_site():
        raise Forbidden("A page of another site may not sign anybody in.")
    ring = parts().keys
    caller = Caller() if ring is None else whose_key(ring, key)
    if not caller.may("read"):
        raise Forbidden("This key lacks the scope read, which every page needs.")
    prefix = "" if ring is None else prefix_of(key)
    limits().request(caller.key_id, caller.tenant)
    log.info("signed_in", prefix=prefix, tenant=caller.tenant, address=client_address())
    response = go(request.args.get("next", ""))
    _give(response, Session(caller, prefix, int(time.time())))
    return response


def sign_out() -> Response:
    """End the session of this browser."""
    log.info("signed_out", prefix=session().prefix)
    response = go(f"{PATH}/login")
    response.delete_cookie(COOKIE, path=PATH)
    return response


def to_sign_in() -> Response:
    """Redirect a browser without a session to sign in, and then back to the page it asked for."""
    here = request.full_path.rstrip("?") if request.method == "GET" and "HX-Request" not in request.headers else ""
    where = f"{PATH}/login" + (f"?next={quote(here, safe='')}" if here and here != f"{PATH}/" else "")
    if "HX-Request" in request.headers:  # htmx asked for a part of a page: the whole page must change
        return Response(status=401, headers={"HX-Redirect": where})
    return redirect(where, 303)  # type: ignore[return-value]


def go(where: str, said: str = "") -> Response:
    """Redirect the browser to a page of the dashboard (its start for any other address), which shows the sentence."""
    ours = where.startswith(f"{PATH}/") and where.isprintable() and where.isascii() and "\\" not in where
    response = cast(Response, redirect(where if ours and "//" not in where.partition("?")[0] else f"{PATH}/", 303))
    if said:
        _set(response, SAID, _signer("said").dumps(said[:300]), 60)
    return response


def said() -> str | None:
    """Return the sentence that the last action left for this page."""
    try:
        kept: str = _signer("said").loads(request.cookies.get(SAID, ""), max_age=60)
    except BadSignature:
        return None
    g.ui_said = True
    return kept


def after(response: Response) -> Response:
    """Renew the session's cookie while it is used, and forget the sentence that was shown."""
    if g.get("ui_said"):
        response.delete_cookie(SAID, path=PATH)
    if g.get("ui_renew") and "Set-Cookie" not in response.headers:
        _give(response, session())
    return response


def _current() -> Session:
    ring = parts().keys
    if ring is None:
        refuse_web_pages(runtime().settings.auth_off_anywhere)
        return Session(Caller(), "", 0)
    signed = request.cookies.get(COOKIE, "")
    try:
        (prefix, began), at = _signer("session").loads(signed, max_age=IDLE_SECONDS, return_timestamp=True)
        if time.time() - began > LONGEST_SECONDS:
            raise NotSignedIn
        caller = ring.of_prefix(prefix)
    except (BadSignature, Unauthorized):
        raise NotSignedIn from None
    g.ui_renew = time.time() - at.timestamp() > RENEW_SECONDS
    return Session(caller, prefix, began)


def _from_our_page(mine: Session) -> None:
    token = read_form().get("csrf", "")
    if from_another_site() or not hmac.compare_digest(token.encode(), mine.csrf.encode()):
        log.warning("csrf_refused", route=request.endpoint, prefix=mine.prefix)
        raise Forbidden("This did not come from a page of your session. Reload the page and try again.")


def _give(response: Response, mine: Session) -> None:
    _set(response, COOKIE, _signer("session").dumps([mine.prefix, mine.began]), IDLE_SECONDS)


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path=PATH, httponly=True, samesite="Lax", secure=request.is_secure
    )


def _signer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        _secret(), salt=f"bridge {purpose}", signer_kwargs={"digest_method": "sha256", "key_derivation": "hmac"}
    )


def _secret() -> bytes:
    """Return the secret that signs cookies, read from PostgreSQL once per process."""
    if "ui_secret" not in current_app.extensions:
        current_app.extensions["ui_secret"] = session_secret(runtime().engine, runtime().settings)
    return cast(bytes, current_app.extensions["ui_secret"])
