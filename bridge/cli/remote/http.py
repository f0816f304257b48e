"""The bridge as the client commands see it: only over HTTP, with BRIDGE_URL and BRIDGE_KEY."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any, NamedTuple
from urllib.parse import quote

import jobbridge_client
from bridge.cli.errors import Refused, RefusedByBridge, Unreachable
from bridge.cli.text import clean
from bridge.settings import load_settings
from jobbridge_client import Client, Reply

ANSWER_SECONDS = 60.0


class Answer(NamedTuple):
    """What the bridge said, and the time of its clock: ages follow that one, not this machine's."""

    body: dict[str, Any]
    now: datetime


class Bridge:
    """A bridge at an address."""

    def __init__(self, url: str, key: str | None) -> None:
        """Take an address and a key. Raises Refused if either is malformed."""
        try:
            self._client = Client(url, key, patience=0, allow_http=True)
        except jobbridge_client.BadSetting as bad:
            if str(bad).startswith("key: "):
                raise Refused("BRIDGE_KEY contains an invalid character") from None
            address = "the bridge's address (--url, BRIDGE_URL) must look like https://bridge.example.org"
            raise Refused(address) from None
        self.url = url.rstrip("/")
        self.key = key

    def get(self, path: str, **query: Any) -> Answer:
        return self.ask("GET", path, query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Answer:
        return self.ask("POST", path, query, body)

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send one request. `query`: None is left out. Raises RefusedByBridge, Unreachable."""
        params = {name: _written(value) for name, value in query.items() if value is not None}
        try:
            reply = self._client.call(method, path, params, body, headers=headers, seconds=seconds)
        except jobbridge_client.Unreachable as error:
            cause = _cause(error)
            raise Unreachable(f"{self.url} cannot be reached: {cause}" if cause else clean(str(error))) from None
        except jobbridge_client.BadAnswer as error:
            raise Unreachable(clean(str(error))) from None
        except UnicodeEncodeError:
            raise Refused("what is to be sent is not UTF-8") from None
        return self._read(reply)

    def _read(self, reply: Reply) -> Answer:
        """Return what the bridge said. Raises RefusedByBridge; Unreachable if somebody else answered."""
        status, document = reply.status, None
        with suppress(ValueError, RecursionError):
            document = json.loads(reply.body)
        if not isinstance(document, dict) or "x-request-id" not in reply.headers:
            raise Unreachable(f"what answers at {self.url} is not the bridge ({status} {responses.get(status, '')})")
        if status in (200, 201):
            return Answer(document, _clock(reply))
        raise RefusedByBridge(self._said(status, document), passing=status in (429, 503))

    def _said(self, status: int, problem: dict[str, Any]) -> list[str]:
        """Return the problem's detail, and each field with its messages; what both say appears once."""
        detail, errors = str(problem.get("detail", "")), problem.get("errors")
        fields = sorted(errors.items()) if isinstance(errors, dict) else []
        if fields:
            detail = detail.partition(f" {fields[0][0]}: ")[0]
        lines = [detail or f"the answer was {status}"]
        if status == 401 and self.key is None:
            lines[0] += " (BRIDGE_KEY is not set)"
        for field, messages in fields:
            told = messages if isinstance(messages, list) else [messages]
            lines.append(f"{field}: {' '.join(one if isinstance(one, str) else json.dumps(one) for one in told)}")
        return [clean(line) for line in lines]


def bridge_at(url: str | None) -> Bridge:
    """Return the bridge of these settings, or at another address. Raises SettingsError, Refused."""
    settings = load_settings()
    return Bridge(url or settings.require("url"), settings.key)


def part(text: object) -> str:
    """Encode a text as one part of a path, whatever it holds."""
    return quote(str(text), safe="")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _clock(reply: Reply) -> datetime:
    try:
        return parsedate_to_datetime(reply.headers["date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _cause(error: BaseException) -> str:
    """Return the innermost reason that the system gave, such as `Connection refused`; empty if it gave none."""
    reason = ""
    step: BaseException | None = error
    while step is not None:
        if isinstance(step, OSError) and step.strerror:
            reason = str(getattr(step, "verify_message", "") or step.strerror)
        step = step.__cause__ or step.__context__
    return clean(reason)
