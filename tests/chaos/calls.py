"""One client's connection to the bridge: makes a call, records it, tells what came of it."""

import itertools
import time
from datetime import datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from tests.chaos.history import ROUTES, Call, Given, History, Outcome

_numbers = itertools.count(1)


class Caller:
    """Has a key and one kept connection. Not for two threads."""

    def __init__(self, history: History, url: str, key: str, tenant: str, who: str) -> None:
        self.history, self.tenant, self.who = history, tenant, who
        self._url = url
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1))
        self._session.headers["Authorization"] = f"Bearer {key}"
        self._shift = time.monotonic() - time.time()

    def call(
        self,
        what: str,
        *,
        json: Any = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 8.0,
        **said: Any,
    ) -> tuple[Call, dict[str, Any]]:
        """One request; `said` are fields of the Call. The body is empty unless it was JSON with a 2xx."""
        method, path = ROUTES[what]
        call = self.history.begin(self.who, what, self.tenant, **said)
        nonce = f"chaos-{next(_numbers)}"
        try:
            response = self._session.request(
                method,
                self._url + path.replace("{job_id}", call.job_id or ""),
                json=json,
                params=params,
                headers={"X-Request-ID": nonce, **(headers or {})},
                timeout=timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            call.ended, call.detail = time.monotonic(), type(error).__name__
            return call, {}
        return call, self._read(call, response, nonce)

    def _read(self, call: Call, response: requests.Response, nonce: str) -> dict[str, Any]:
        call.ended, call.status = time.monotonic(), response.status_code
        call.retry_after = "Retry-After" in response.headers
        call.echoed = response.headers.get("X-Request-ID") == nonce
        call.state = response.headers.get("X-Job-Status")
        body: dict[str, Any] = {}
        if "json" in response.headers.get("Content-Type", ""):
            body = response.json()
        if response.ok:
            call.outcome = Outcome.OK
            self._learn(call, body)
            return body
        call.outcome = Outcome.REFUSED if response.status_code < 500 else Outcome.UNKNOWN
        call.code, call.detail = body.get("code"), str(body.get("detail", ""))[:200]
        if call.retry_after:
            time.sleep(min(float(response.headers["Retry-After"]), 1.0))
        return {}

    def _learn(self, call: Call, body: dict[str, Any]) -> None:
        """Note what an answer says about jobs."""
        if call.what == "poll":
            call.given = tuple(Given(job["job_id"], job["attempt"], job["lease_token"], job["content_type"])
                               for job in body["jobs"])  # fmt: skip
        elif call.what == "create":
            call.job_ids = (body["job_id"],)
        elif call.what in ("batch", "list"):
            call.job_ids = tuple(job["job_id"] for job in body["jobs"])
        elif "status" in body:
            call.state = body["status"]
        if body.get("lease_expires_at"):
            call.lease_ends = datetime.fromisoformat(body["lease_expires_at"]).timestamp() + self._shift
        if call.what == "read":
            call.content = body["content"]
