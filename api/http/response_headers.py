"""The headers of every response, whichever way its request was served."""

import re
import uuid

from bridge.state_change import REQUEST_ID

_REQUEST_ID = re.compile(r"[!-~]{1,128}\Z")
# Nothing is to be run, framed, sniffed, kept or told to another site.
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def begin_request(sent: str) -> str:
    """Return the ID that the client has given its request, or a new one; what is logged from now on has it."""
    given = sent if _REQUEST_ID.match(sent) else uuid.uuid4().hex
    REQUEST_ID.set(given)
    return given
