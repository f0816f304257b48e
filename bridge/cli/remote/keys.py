"""Keys over HTTP, with an admin key: none exceeds or outlives it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.cli.remote.http import Bridge, part
from bridge.names import KEYS_BASE

_MOMENTS = ("created_at", "expires_at", "revoked_at", "last_used_at")
_PER_PAGE = 500


class OverHttp:
    """The calls of `InDatabase`, for the keys that ours administers. All may raise RefusedByBridge, Unreachable."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def create(self, wanted: Mapping[str, Any]) -> tuple[str, str | None]:
        body = {name: told.isoformat() if isinstance(told, datetime) else told for name, told in wanted.items()}
        made = self._bridge.post(f"{KEYS_BASE}/", body).body
        return str(made["key"]), made["webhook_secret"]

    def change_webhook_secret(self, prefix: str) -> str:
        return str(self._bridge.post(f"{KEYS_BASE}/{part(prefix)}/webhook-secret").body["webhook_secret"])

    def listed(self, made_by: str | None) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        cursor = None
        while True:
            page = self._bridge.get(f"{KEYS_BASE}/", made_by=made_by, limit=_PER_PAGE, cursor=cursor).body
            found += [{**row, **{name: _moment(row[name]) for name in _MOMENTS}} for row in page["keys"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def revoke(self, prefix: str, *, with_made: bool) -> tuple[int, int]:
        done = self._bridge.ask("DELETE", f"{KEYS_BASE}/{part(prefix)}", {"made": with_made or None}).body
        return 1 + done["also_revoked"], done["released"]


def _moment(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)
