"""The bridge's HTTP interface for a worker: one method a route, each a single attempt."""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from bridge_worker import __version__
from bridge_worker.abortable import AbortableAdapter
from bridge_worker.job import Job, one_line

BASE = "/api/v1/remote-jobs"
CONNECT_SECONDS = 10.0


class CallFailed(Exception):
    """A call that did not succeed. `status` is None when no answer came; `retry_after` is in seconds."""

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str = "",
        job_status: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.job_status, self.retry_after = status, code, job_status, retry_after

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later: no answer, 429, or an error of the server."""
        return self.status is None or self.status == 429 or self.status >= 500


@dataclass(frozen=True)
class Answer:
    """A successful answer: its JSON object and what it says of the job's state."""

    body: dict[str, Any]
    job_status: str | None


class _Bearer(AuthBase):
    """Sets the key as an auth object, so that a .netrc cannot replace it."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class BridgeClient:
    """Calls one bridge with one key. Safe to share between threads."""

    def __init__(self, url: str, key: str | None, worker_id: str, *, connections: int = 10) -> None:
        """`url` is the bridge's address, with a path prefix if it has one; `key` None where keys are off."""
        self._url = url.rstrip("/")
        self.worker_id = worker_id
        self._poll_adapter = AbortableAdapter(pool_maxsize=1)
        self._poll_session = self._session(key, self._poll_adapter)
        self._job_session = self._session(key, HTTPAdapter(pool_maxsize=connections))

    @staticmethod
    def _session(key: str | None, adapter: HTTPAdapter) -> requests.Session:
        session = requests.Session()
        session.auth = _Bearer(key)
        session.headers.update({"User-Agent": f"bridge-worker/{__version__}", "Accept": "application/json"})
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def poll(
        self,
        claim_id: str,
        content_types: list[str],
        max_jobs: int,
        wait: int,
        lease: int,
        *,
        parked: bool = True,
    ) -> list[Job]:
        """Claim up to `max_jobs` jobs, waiting up to `wait` s. The same `claim_id` gives the same jobs again.

        `parked` polls can be ended by `abort_poll`. Raises CallFailed.
        """
        params = {
            "worker_id": self.worker_id,
            "content_types": ",".join(content_types),
            "max_jobs": max_jobs,
            "wait": wait,
            "lease": lease,
            "claim_id": claim_id,
        }
        session = self._poll_session if parked else self._job_session
        body = self._json(session, "GET", BASE + "/poll", params=params, read_seconds=wait + 15).body
        # A bridge that names only the first job has no list.
        claims = body.get("jobs") or ([body] if body.get("job_id") else [])
        try:
            return [Job(claim) for claim in claims]
        except (KeyError, TypeError, AttributeError) as error:
            raise CallFailed(f"the answer to the poll was not understood: {error!r}") from error

    def abort_poll(self) -> None:
        """End a waiting poll at once: it raises CallFailed in its thread."""
        self._poll_adapter.abort()

    def heartbeat(self, job: Job, report: dict[str, Any]) -> Answer:
        """Show a sign of life with the handler's progress. Raises CallFailed."""
        return self._job_json(job, "POST", "/heartbeat", {"lease_token": job.lease_token, **report})

    def release(self, job: Job) -> Answer:
        """Give an unfinished job back. Raises CallFailed."""
        return self._job_json(job, "POST", "/release", {"lease_token": job.lease_token})

    def submit(self, job: Job, body: bytes) -> Answer:
        """Send a result, already encoded as JSON. Safe to repeat. Raises CallFailed."""
        return self._json(
            self._job_session,
            "PUT",
            f"{BASE}/{job.id}/result",
            data=body,
            read_seconds=60,
            headers=self._lease(job) | {"Content-Type": "application/json"},
        )

    def open_download(self, job: Job, headers: dict[str, str]) -> requests.Response:
        """Begin to read the source file; the caller closes the answer (200 or 206). Raises CallFailed."""
        path = job.source_file_url or f"{BASE}/{job.id}/download"
        if not path.startswith("/") or path.startswith("//"):
            raise CallFailed("the bridge named a source file elsewhere; the key is not sent there", status=400)
        headers = headers | self._lease(job) | {"Accept": "*/*", "Accept-Encoding": "identity"}
        return self._send(self._job_session, "GET", path, headers=headers, stream=True, read_seconds=60)

    def _job_json(self, job: Job, method: str, path: str, body: dict[str, Any]) -> Answer:
        return self._json(
            self._job_session,
            method,
            f"{BASE}/{job.id}{path}",
            read_seconds=10,
            json={k: v for k, v in body.items() if v is not None},
            headers=self._lease(job),
        )

    @staticmethod
    def _lease(job: Job) -> dict[str, str]:
        return {"X-Lease-Token": job.lease_token} if job.lease_token else {}

    def _json(self, session: requests.Session, method: str, path: str, **options: Any) -> Answer:
        response = self._send(session, method, path, **options)
        try:
            body = response.json()
        except (ValueError, requests.RequestException) as error:
            raise CallFailed("the answer is no JSON") from error
        if not isinstance(body, dict):
            raise CallFailed("the answer is no JSON object")
        return Answer(body, response.headers.get("X-Job-Status"))

    def _send(
        self, session: requests.Session, method: str, path: str, *, read_seconds: float, **options: Any
    ) -> requests.Response:
        try:
            response = session.request(
                method,
                self._url + path,
                timeout=(CONNECT_SECONDS, read_seconds),
                allow_redirects=False,
                **options,
            )
        except (requests.RequestException, OSError) as error:
            raise CallFailed(f"no answer from the bridge ({type(error).__name__})") from error
        if response.status_code >= 300:
            with response:
                raise _refusal(response)
        return response


def _refusal(response: requests.Response) -> CallFailed:
    """Turn an answer that is no success into an error that names the bridge's code and sentence."""
    try:
        problem = json.loads(response.content[:65536])
    except (ValueError, requests.RequestException):
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = one_line(str(problem.get("detail") or response.reason or ""), 300)
    if response.is_redirect:
        detail = f"redirected to {one_line(response.headers['Location'], 200)}: use that address as the URL"
    request_id = response.headers.get("X-Request-ID", "-")
    return CallFailed(
        f"{response.status_code} {detail} (request {one_line(request_id, 128)})",
        status=response.status_code,
        code=str(problem.get("code") or ""),
        job_status=response.headers.get("X-Job-Status"),
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None when absent or unreadable."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
