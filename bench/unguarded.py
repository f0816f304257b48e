"""The API without keys, JSON guard and limits, for bench/security.py alone: what they cost is the difference."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import orjson

from api.http import body
from bridge.admission import json_guard, limits
from bridge.admission.key_cache import KeyCache
from bridge.caller import Caller

NOBODY = Caller()


class Unlimited(limits.Limits):
    """Limits that count nothing."""

    def parked(self, *_: Any) -> AbstractContextManager[None]:  # type: ignore[override]
        """Count no poll."""
        return nullcontext()

    def room(self, *_: Any) -> int:
        """Return more than any poll asks for."""
        return 10**6

    def _nothing(self, *_: Any) -> None:
        pass

    keep = request = as_many = failure = check_parked = took = submit = _nothing  # type: ignore[assignment]


KeyCache.caller = lambda self, sent: NOBODY  # type: ignore[method-assign, assignment]
json_guard.parse = orjson.loads  # type: ignore[assignment]
limits.Limits = Unlimited  # type: ignore[misc]
from api import create_app, wsgi  # noqa: E402  (after the replacements above)

assert vars(create_app)["Limits"] is Unlimited
assert vars(body)["json_guard"].parse is orjson.loads
app = wsgi.app
