"""The headers of every response, however its request was served."""

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from bridge.job_events import REQUEST_ID
from bridge.traces import TRACEPARENT, valid

_REQUEST_ID = re.compile(r"[!-~]{1,128}\Z")


def begin_request(environ: Mapping[str, Any]) -> str:
    """Return the ID that the client gave its request, or a new one, and put it into all log lines from here on.

    Spans recorded from here on join the trace that the request names.
    """
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    given = sent if _REQUEST_ID.match(sent) else token_hex(16)
    REQUEST_ID.set(given)
    TRACEPARENT.set(valid(environ.get("HTTP_TRACEPARENT")))
    return given
