"""A client of the API, as short as a test wants it: one method a route, the answer as it came."""

import itertools
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from bridge.names import API_BASE

_numbers = itertools.count(1)


class Client:
    """Requests with one key. Every method returns the `requests.Response`; `ok` fails unless it is a 200."""

    def __init__(self, url: str, key: str | None, files: Path, tenant: str = "default") -> None:
        self.url = url
        self.key = key
        self.tenant = tenant
        self.files = files
        self.session = requests.Session()
        self.session.mount("http://", HTTPAdapter(pool_maxsize=128))
        if key is not None:
            self.session.headers["Authorization"] = f"Bearer {key}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """`path` starts with `/` for the whole address, else it lies below the base of remote jobs."""
        whole = path if path.startswith("/") else f"{API_BASE}/{path}"
        return self.session.request(method, self.url + whole, timeout=options.pop("timeout", 70), **options)

    def begin(self, method: str, path: str, headers: dict[str, str] | None = None) -> socket.socket:
        """Return a connection on which the head of such a request was sent, and nothing else."""
        at = urlsplit(self.url)
        connection = socket.create_connection((at.hostname, at.port), timeout=60)
        sent = {"Host": "a", "Authorization": f"Bearer {self.key}", **(headers or {})}
        lines = [f"{method} {API_BASE}/{path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        return self.request("POST", path, json=json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        return self.request("PUT", path, json=json, **options)

    def source(self, content: bytes = b"source", name: str | None = None) -> str:
        """Write a source file under the root; return its path."""
        path = self.files / (name or f"source-{next(_numbers)}.bin")
        path.write_bytes(content)
        return str(path)

    def fields(self, content_type: str = "audio", **fields: Any) -> dict[str, Any]:
        """Return the body of a valid create."""
        given = {"content_type": content_type, "ingestion_task_id": f"task-{next(_numbers)}", **fields}
        return {"source_file_path": self.source() if "source_file_path" not in fields else "", **given}

    def create(self, content_type: str = "audio", *, headers: dict[str, str] | None = None, **fields: Any) -> str:
        """Return a new job's ID."""
        return str(ok(self.post("", self.fields(content_type, **fields), headers=headers))["job_id"])

    def poll(
        self, content_types: str = "audio", worker_id: str = "w1", timeout: float = 70, **query: Any
    ) -> requests.Response:
        """Poll; without `wait` in the query the poll does not wait."""
        params = {"worker_id": worker_id, "content_types": content_types, "wait": 0, **query}
        given = {name: value for name, value in params.items() if value is not None}
        return self.get("poll", params=given, timeout=timeout)

    def claim(self, content_types: str = "audio", worker_id: str = "w1", **query: Any) -> dict[str, Any]:
        """Return a claimed job, waited for."""
        jobs = ok(self.poll(content_types, worker_id, **{"wait": 50, "lease": 60, **query}))["jobs"]
        assert jobs, f"no job of {content_types} came"
        return dict(jobs[0])

    def held(
        self, content_type: str = "audio", worker_id: str = "w1", *, lease: int | None = 60, **fields: Any
    ) -> dict[str, Any]:
        """Return a new job, claimed."""
        self.create(content_type, **fields)
        return self.claim(content_type, worker_id, lease=lease)

    def result(self, job: dict[str, Any], **body: Any) -> requests.Response:
        """Return the result of a claimed job: a success unless `success=False`."""
        sent = {"success": True, "content": "text", "lease_token": job.get("lease_token"), **body}
        return self.put(f"{job['job_id']}/result", sent)

    def download(self, job: dict[str, Any], method: str = "GET", **headers: str) -> requests.Response:
        """Ask for the source of a claimed job; `If_Range="…"` is a header."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request(method, job["source_file_url"], headers={"X-Lease-Token": job["lease_token"], **sent})

    def heartbeat(self, job: dict[str, Any], timeout: float = 70, **body: Any) -> requests.Response:
        sent = {"lease_token": job.get("lease_token"), **body}
        return self.post(f"{job['job_id']}/heartbeat", sent, timeout=timeout)

    def pages(self, path: str, name: str, **query: Any) -> list[list[dict[str, Any]]]:
        """Return every page of a list, each as what it has under this name."""
        found: list[list[dict[str, Any]]] = []
        cursor = None
        while not found or cursor is not None:
            page = ok(self.get(path, params={**query, "cursor": cursor}))
            found.append(page[name])
            cursor = page["next_cursor"]
        return found

    def job(self, job_id: str) -> dict[str, Any]:
        return ok(self.get(job_id))

    def status(self, job_id: str) -> str:
        return str(ok(self.get(f"{job_id}/status"))["status"])


def status_of(url: str, **options: Any) -> int:
    """Return the status with which an address answers, 0 if nobody does within 10 s."""
    try:
        return requests.get(url, timeout=10, **options).status_code
    except requests.RequestException:
        return 0


def ok(response: requests.Response) -> dict[str, Any]:
    """Return the body of a 200."""
    assert response.status_code == 200, f"{response.status_code}: {response.text[:500]}"
    return dict(response.json())


def refused(response: requests.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Return the problem of a refusal with this status (and code)."""
    assert response.status_code == status, f"{response.status_code} instead of {status}: {response.text[:500]}"
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = dict(response.json())
    assert problem["status"] == status
    assert problem["detail"]
    if code is not None:
        assert problem["code"] == code, problem
    return problem
