"""The bridge's HTTP interface for a worker: one method per route, each a single try."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from bridge_worker import __version__, traces
from bridge_worker.abortable import AbortableAdapter
from bridge_worker.answers import Answer, CallFailed, json_object, outcomes_of, refusal
from bridge_worker.claim import BadClaim, Claim, read_claim
from bridge_worker.facts import Facts
from bridge_worker.public_addresses import Network
from bridge_worker.reasons import why_no_answer
from bridge_worker.source_fetch import open_source
from jobbridge_client.address import stays_here
from jobbridge_client.errors import BadAnswer
from jobbridge_client.steps import Request

log = logging.getLogger(__name__)
BASE = "/api/v1/remote-jobs"
CONNECT_SECONDS = 10.0
RESULT_SECONDS = 60.0
FILES_SECONDS = 600.0  # for calls in which the bridge reads or writes a large file before it answers
POLL_LIMIT = 64 * 2**20  # bytes of a poll's answer: a claim holds up to about 32 MiB of task_options
ANSWER_LIMIT = 2**20  # bytes of any other answer


class SourceRequest(Request):
    """A request to the address that a job's producer named: not of the bridge, and perhaps of a bad mind."""


class Unredirected(requests.Session):
    """One that has no look at where a redirect leads.

    Not told to follow it, requests' own still reads all of its body and raises where the address is none.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return nowhere."""


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

    def __init__(
        self,
        url: str,
        key: str | None,
        worker_id: str,
        *,
        connections: int = 10,
        facts: Facts | None = None,
        source_networks: Sequence[Network] = (),
    ) -> None:
        """Take the bridge's address `url`, with a path prefix if it has one; `key` is None where keys are off.

        `facts` are sent with polls and heartbeats. `source_networks` may be fetched from although not public.
        """
        self._source_networks = source_networks
        self._url = urlsplit(url).geturl().rstrip("/")  # the scheme in lower case
        self.worker_id = worker_id
        self.on_drain: Callable[[], object] = lambda: None  # called when an answer asks this worker to end
        self._facts = facts
        self._poll_adapter = AbortableAdapter(pool_maxsize=1)
        self._poll_session = self._session(key, self._poll_adapter)
        self._job_session = self._session(key, HTTPAdapter(pool_maxsize=connections))
        self._store_session = self._session(None, HTTPAdapter(pool_maxsize=connections))

    def _session(self, key: str | None, adapter: HTTPAdapter) -> requests.Session:
        session = Unredirected()
        if self._url.startswith("http:") and stays_here(self._url):
            session.trust_env = False  # no proxy: an unencrypted key stays on this machine
        session.auth = _Bearer(key)
        session.headers.update({"User-Agent": f"bridge-worker/{__version__}", "Accept": "application/json"})
        session.headers["Accept-Encoding"] = "identity"  # a small answer must not become a large one
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
        busy: int = 0,
        parked: bool = True,
    ) -> list[Claim]:
        """Claim up to `max_jobs` jobs, waiting up to `wait` s. The same `claim_id` gives the same jobs again.

        `busy` and `max_jobs` also report the busy and free slots. `parked` polls can be ended by `abort_poll`.
        Raises CallFailed.
        """
        facts = self._facts.due() if self._facts else {}
        params = {
            "worker_id": self.worker_id,
            "content_types": ",".join(content_types),
            "max_jobs": max_jobs,
            "wait": wait,
            "lease": lease,
            "claim_id": claim_id,
            "slots_busy": busy,
            "slots_free": max_jobs,
            **facts,
        }
        session = self._poll_session if parked else self._job_session
        answer = self._json(session, "GET", BASE + "/poll", params=params, read_seconds=wait + 15, limit=POLL_LIMIT)
        self._told(facts)
        # An old bridge names only the first job, without a list.
        claims = answer.body.get("jobs") or ([answer.body] if answer.body.get("job_id") else [])
        if not isinstance(claims, list):
            raise CallFailed("the answer to the poll was not understood: jobs is not a list")
        understood = []
        for claim in claims[:max_jobs]:
            try:
                understood.append(read_claim(claim, answer.date))
            except BadClaim as error:
                log.error("a claim was not understood and goes back unacknowledged: %s", error)
        return understood

    def abort_poll(self) -> None:
        """End a waiting poll at once: it raises CallFailed in its thread."""
        self._poll_adapter.abort()

    def heartbeat(self, claim: Claim, report: dict[str, Any]) -> Answer:
        """Give a sign of life with the handler's progress. Raises CallFailed."""
        facts = self._facts.due() if self._facts else {}
        answer = self._job_json(claim, "POST", "/heartbeat", {"lease_token": claim.lease_token, **report, **facts})
        self._told(facts)
        return answer

    def append_log(self, claim: Claim, lines: list[str]) -> Answer:
        """Append lines to the job's log. Raises CallFailed."""
        return self._job_json(claim, "POST", "/log", {"lease_token": claim.lease_token, "lines": lines})

    def save_checkpoint(self, claim: Claim, **checkpoint: str) -> Answer:
        """Store a `checkpoint`, or the ID of a `checkpoint_upload`, for the next attempt. Raises CallFailed."""
        return self._job_json(claim, "PUT", "/checkpoint", {"lease_token": claim.lease_token, **checkpoint})

    def _told(self, facts: dict[str, Any]) -> None:
        if self._facts:
            self._facts.told(facts)

    def evict(self) -> Answer:
        """Give back all jobs that this worker holds, in one call, without spending a retry. Raises CallFailed."""
        path = f"/api/v1/workers/{quote(self.worker_id, safe='')}/evict"
        return self._json(self._job_session, "POST", path, read_seconds=10)

    def release(self, claim: Claim) -> Answer:
        """Give an unfinished job back. Raises CallFailed."""
        return self._job_json(claim, "POST", "/release", {"lease_token": claim.lease_token})

    def submit(self, claim: Claim, body: bytes, *, files: bool = False) -> Answer:
        """Send a result, already encoded as JSON; `files`: it names uploads. Safe to repeat. Raises CallFailed."""
        return self._json(
            self._job_session,
            "PUT",
            f"{BASE}/{claim.job_id}/result",
            data=body,
            read_seconds=FILES_SECONDS if files else RESULT_SECONDS,
            headers=self._lease(claim) | {"Content-Type": "application/json"},
        )

    def submit_many(self, results: Sequence[tuple[Claim, bytes]]) -> list[Answer | CallFailed]:
        """Send up to 100 results, each encoded as a JSON object; return the outcome of each. Raises CallFailed."""
        named = [data[:-1] + b',"job_id":' + json.dumps(claim.job_id).encode() + b"}" for claim, data in results]
        answer = self._json(
            self._job_session,
            "POST",
            "/api/v1/results",
            data=b'{"results":[' + b",".join(named) + b"]}",
            read_seconds=RESULT_SECONDS,
            headers={"Content-Type": "application/json"},
        )
        return outcomes_of(answer.body, len(results))

    def open(self, claim: Claim, request: Request, data: Iterable[bytes] | None = None) -> requests.Response:
        """Make a request of the client's steps for files, `data` being its body; the caller closes the answer.

        Raises CallFailed, BadAnswer, SourceRefused.
        """
        if isinstance(request, SourceRequest):
            return open_source(request.path, request.headers, self._source_networks)
        if request.away:
            return self._from_store(request)
        options: dict[str, Any] = {"headers": {**request.headers, **self._lease(claim)}, "data": data, "stream": True}
        also = 200 if request.taker is None else 307
        path, seconds = request.path, request.seconds
        return self._send(self._job_session, request.method, path, read_seconds=seconds, also=also, **options)

    def _from_store(self, request: Request) -> requests.Response:
        """Open a file at the address to which the bridge redirects, without key and token."""
        if self._url.startswith("https:") and request.path.startswith("http:"):
            raise BadAnswer("the bridge's store is at an http address, from which the file would come unencrypted")
        timeout = (CONNECT_SECONDS, request.seconds)
        try:
            response = self._store_session.get(
                request.path, headers=request.headers, stream=True, timeout=timeout, allow_redirects=False
            )
        except (requests.RequestException, OSError, ValueError) as error:
            log.debug("no answer", exc_info=True)
            raise CallFailed(f"no answer from the bridge's store: {why_no_answer(error)}") from error
        if response.status_code not in (200, 206):
            response.close()
            raise CallFailed(f"the bridge's store answers {response.status_code}")  # another redirect may do better
        return response

    def _job_json(self, claim: Claim, method: str, path: str, body: dict[str, Any]) -> Answer:
        return self._json(
            self._job_session,
            method,
            f"{BASE}/{claim.job_id}{path}",
            read_seconds=10,
            json={k: v for k, v in body.items() if v is not None},
            headers=self._lease(claim),
        )

    @staticmethod
    def _lease(claim: Claim) -> dict[str, str]:
        lease = {"X-Lease-Token": claim.lease_token} if claim.lease_token else {}
        return lease | traces.header(claim)

    def _json(
        self, session: requests.Session, method: str, path: str, *, limit: int = ANSWER_LIMIT, **options: Any
    ) -> Answer:
        with self._send(session, method, path, stream=True, **options) as response:
            body = json_object(response, limit, options["read_seconds"])
        if body.get("drain") is True:
            self.on_drain()
        return Answer(body, response.headers.get("X-Job-Status"), response.headers.get("Date"))

    def _send(
        self, session: requests.Session, method: str, path: str, *, read_seconds: float, also: int = 200, **options: Any
    ) -> requests.Response:
        try:
            response = session.request(
                method,
                self._url + path,
                timeout=(CONNECT_SECONDS, read_seconds),
                allow_redirects=False,
                **options,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            log.debug("no answer", exc_info=True)
            raise CallFailed(f"no answer from the bridge: {why_no_answer(error)}") from error
        if response.status_code >= 300 and response.status_code != also:
            with response:
                refused = refusal(response)
            if refused.drain:
                self.on_drain()
            raise refused
        return response
