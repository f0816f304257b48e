"""The bridge as the client commands see it: over HTTP, with BRIDGE_URL and BRIDGE_KEY, and nothing else of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import requests

from bridge.cli.errors import Refused, RefusedByBridge, Unreachable
from bridge.cli.text import clean
from bridge.settings import load_settings

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0


class Answer(NamedTuple):
    """What the bridge said, and what its clock showed: ages are told by that one, not by this machine's."""

    body: dict[str, Any]
    now: datetime


class Bridge:
    """A bridge at an address."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises Refused when either cannot be what it should."""
        try:
            parts = urlsplit(url)
            bad = parts.scheme not in ("http", "https") or not parts.hostname or bool(parts.query or parts.fragment)
            _ = parts.port
        except ValueError:
            bad = True
        if bad or "@" in parts.netloc or not url.isprintable() or " " in url:
            raise Refused("the bridge's address (--url, BRIDGE_URL) must look like https://bridge.example.org")
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise Refused("BRIDGE_KEY contains an invalid character")
        self.url = url.rstrip("/")
        self.key = key
        self._session = requests.Session()
        self._session.auth = self._sign  # not as a header, which a .netrc would replace
        self._session.headers["Accept"] = "application/json"

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key is not None:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    def get(self, path: str, **query: Any) -> Answer:
        """`ask`, to read."""
        return self.ask("GET", path, query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Answer:
        """`ask`, to change."""
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
        """One request. `query`: None is left out. Raises RefusedByBridge, Unreachable."""
        params = {name: _written(value) for name, value in query.items() if value is not None}
        return self.read(self.send(method, path, seconds=seconds, params=params, json=body, headers=headers))

    def send(self, method: str, path: str, *, seconds: float = ANSWER_SECONDS, **sent: Any) -> requests.Response:
        """One request, and whatever it is answered. Raises Unreachable."""
        try:
            # No redirects: the key goes nowhere else.
            return self._session.request(
                method, self.url + path, timeout=(CONNECT_SECONDS, seconds), allow_redirects=False, **sent
            )
        except requests.Timeout:
            raise Unreachable(f"{self.url} gave no answer in time") from None
        except requests.RequestException as error:
            raise Unreachable(f"{self.url} cannot be reached: {_cause(error)}") from None

    def read(self, response: requests.Response) -> Answer:
        """What the bridge said. Raises RefusedByBridge; Unreachable where it is somebody else."""
        status, document = response.status_code, None
        with suppress(ValueError, RecursionError):
            document = response.json()
        if not isinstance(document, dict) or "X-Request-ID" not in response.headers:
            raise Unreachable(f"what answers at {self.url} is not the bridge ({status} {clean(response.reason)})")
        if status in (200, 201):
            return Answer(document, _clock(response))
        raise RefusedByBridge(self._said(status, document), passing=status in (429, 503))

    def _said(self, status: int, problem: dict[str, Any]) -> list[str]:
        """The problem's detail, and each field with its messages; what stands in both is told once."""
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
    """The bridge of these settings, or at another address. Raises SettingsError, Refused."""
    settings = load_settings()
    return Bridge(url or settings.require("url"), settings.key)


def part(text: object) -> str:
    """A text as one part of a path, whatever it holds."""
    return quote(str(text), safe="")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _clock(response: requests.Response) -> datetime:
    try:
        return parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _cause(error: BaseException) -> str:
    """The innermost reason that the system gave, such as `Connection refused`."""
    reason = "the connection broke off"
    step: BaseException | None = error
    while step is not None:
        if isinstance(step, OSError) and not isinstance(step, requests.RequestException) and step.strerror:
            reason = str(getattr(step, "verify_message", "") or step.strerror)
        step = step.__cause__ or step.__context__
    return clean(reason)
