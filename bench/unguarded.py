"""The API without keys, JSON guard and limits, for bench/security.py alone: what they cost is the difference."""

from contextlib import AbstractContextManager, nullcontext

import orjson

from api.http import access, body
from bridge.admission import json_guard, limits
from bridge.caller import Caller
from bridge.long_poll.poll import Poll

NOBODY = Caller()


class Unlimited(limits.Limits):
    """Limits that count nothing."""

    def keep(self) -> None:
        pass

    def parked(self, poll: Poll) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    def room(self, poll: Poll) -> None:  # type: ignore[override]
        pass

    def took(self, key_id: object, count: int) -> None:  # type: ignore[override]
        pass

    def submit(self, tenant: str, content_types: list[str]) -> None:
        pass


access.authenticate = lambda: NOBODY
json_guard.parse = orjson.loads  # type: ignore[assignment]
limits.Limits = Unlimited  # type: ignore[misc]
from api import create_app, wsgi  # noqa: E402  (after the replacements above)

assert vars(create_app)["Limits"] is Unlimited
assert vars(body)["json_guard"].parse is orjson.loads
app = wsgi.app
