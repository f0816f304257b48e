"""Who is asking: the key of a request, and the scope that a route asks for."""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import structlog
from flask import g, request

from api.http.client_address import real_address
from api.http.connections import prove
from api.http.local_only import refuse_web_pages
from api.http.parts import parts
from api.http.request_spans import begin_span
from bridge.admission.key_cache import REFUSED, KeyCache
from bridge.admission.keys import public_prefix
from bridge.admission.limits import Limits
from bridge.caller import Caller
from bridge.errors import Forbidden, Unauthorized
from bridge.runtime import Runtime
from bridge.workers.registry import WorkerRegistry

log = structlog.get_logger("api.http.access")

SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def runtime() -> Runtime:
    """Return the runtime of this application."""
    return parts().runtime


def seen() -> WorkerRegistry:
    """Return the registry of the workers that ask for jobs."""
    return parts().polls.pauses.seen


def caller() -> Caller:
    """Return who made this request."""
    return cast(Caller, g.caller)


def scope(*scopes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Admit only keys with one of these scopes; checked before anything of the request is read."""

    def guard(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            g.caller = authenticate()
            if not any(g.caller.may(one) for one in scopes):
                log.warning("api_key_scope_missing", key_id=str(g.caller.key_id), route=request.endpoint, scopes=scopes)
                raise Forbidden(f"This key lacks the scope {' or '.join(scopes)}.")
            return view(*args, **kwargs)

        guarded.__dict__["scopes"] = scopes
        doc = dict(getattr(guarded, "_apidoc", {}))
        manual = dict(doc.get("manual_doc", {}))
        manual |= {"security": [{"bearer": []}, {"key": []}], "x-scopes": list(scopes)}
        guarded.__dict__["_apidoc"] = {**doc, "manual_doc": manual}
        return guarded

    return guard


def limits() -> Limits:
    """Return the limits of this process."""
    return parts().limits


def authenticate() -> Caller:
    """Return the key's caller. Raises Unauthorized, TooMany; where no keys are in use, Forbidden to foreign pages."""
    ring = parts().keys
    if ring is None:
        refuse_web_pages(runtime().settings.auth_off_anywhere)
    who = Caller() if ring is None else whose_key(ring, _sent_key())
    prove()
    limits().request(who.key_id, who.tenant)
    g.span = begin_span(runtime().traces)
    return who


def _sent_key() -> str:
    # Read from the environ: request.headers builds an object, and scans all names at each access.
    sent: str = request.environ.get("HTTP_AUTHORIZATION", "")
    kind, _, key = sent.partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        key = request.environ.get("HTTP_X_API_KEY", "")
    return key.strip()


def whose_key(ring: KeyCache, key: str) -> Caller:
    """Return the key's caller. Raises Unauthorized, and TooMany to an address that has sent too many invalid keys."""
    if not key:
        raise Unauthorized(REFUSED)
    if (known := ring.remembered(key)) is not None:
        return known
    try:
        return ring.caller(key)
    except Unauthorized:
        address = client_address()
        limits().failure(address)
        # The limit on failures bounds how often this is logged; of the key, only the public part is.
        log.warning("api_key_refused", address=address, prefix=public_prefix(key), route=request.endpoint)
        raise


def client_address() -> str:
    """Return the address of this request's client, behind trusted proxies."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return real_address(request.remote_addr or "", forwarded, runtime().settings.trusted_proxies)
