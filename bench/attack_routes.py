"""What bench/attack.py bends: a request for every route of the OpenAPI document, and every page and form of /ui.

tests/rules/test_hostile_routes.py compares them with both.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from bridge.names import API_BASE, API_ROOT, KEYS_BASE, WEBHOOKS_BASE

NOBODY = "00000000-0000-7000-8000-000000000000"
FORM = "application/x-www-form-urlencoded"
TUS = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"


class Asked(NamedTuple):
    """A request before it is bent."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    lines: str = ""  # of its head, each with its end

    @property
    def is_form(self) -> bool:
        return self.path.startswith("/ui/") and self.method == "POST"


def requests_of(job: str, source: str, chance: random.Random) -> list[Asked]:
    """Return valid requests, with this job where they name one."""
    new: dict[str, Any] = {"source_file_path": source, "content_type": "a", "ingestion_task_id": "t"}
    named = {**new, "callback_url": "https://hooks.example.org/a?b=c", "unserved_after_seconds": 30}
    result = {"success": True, "content": "c", "metadata": {"x": [1]}}
    lines = {"lines": ["one", "two \x1b[2J", "\u202e"], "lease_token": "t"}
    file = {"name": "a.txt", "upload": NOBODY, "media_type": "text/plain"}
    worker = f"{API_ROOT}/workers/w{chance.randrange(1, 9)}"
    upload, batch = f"{API_ROOT}/uploads/{NOBODY}", f"{API_ROOT}/batches/{chance.choice([NOBODY, 'x', '%00'])}"
    key = chance.choice(["jb_00000000", "%00", "x" * 300])
    mine = f"{API_BASE}/{job}"
    trace = f"traceparent: 00-{chance.choice(['0', '1', 'g']) * 32}-00f067aa0ba902b7-01\r\n"
    return [
        # The first few are sent more often: what they create is compared with what comes back.
        *[Asked("POST", API_BASE, {**new, "task_options": {"x": 1, "y": [1.5, "z"]}}, trace)] * 4,
        *[Asked("POST", f"{API_BASE}/batch", {"jobs": [new, {**new, "priority": "high"}]})] * 2,
        Asked("POST", f"{API_BASE}/batch", {"jobs": [new], "outcome": True, "callback_url": "https://a.example.org/"}),
        Asked("POST", API_BASE, named),
        Asked("POST", API_BASE, {**new, "source_file_path": None, "source_url": "https://files.example.org/a?b",
                                 "source_fetch": chance.choice(["bridge", "worker"]),
                                 "source_sha256": chance.choice(["aB" * 32, "g" * 64])}),
        Asked("POST", API_BASE, {**new, "source_upload": NOBODY}),
        Asked("GET", f"{API_BASE}?limit=5&cursor=x&status=pending&created_after=2026-01-01T00:00:00Z"),
        Asked("POST", f"{API_BASE}/retry?status=failed&content_type=a&dry_run=true"),
        Asked("POST", f"{API_BASE}/cancel?status=failed&content_type=a&dry_run=true"),
        Asked("GET", f"{API_BASE}/poll?worker_id=w&content_types=a&wait=0&max_jobs=1&claim_id=c"),
        Asked("GET", f"{API_BASE}/statistics"), Asked("GET", mine), Asked("GET", f"{mine}/explain"),
        Asked("GET", f"{mine}/status"), Asked("GET", f"{mine}/log?after=0"), Asked("GET", f"{mine}/result"),
        Asked("GET", f"{mine}/download", None, "Range: bytes=1-5\r\nIf-Range: x\r\n"),
        Asked("GET", f"{mine}/artifacts"),
        Asked("GET", f"{mine}/artifacts/{chance.choice(['a.txt', '%2e%2e', '..%2fx', '%00'])}"),
        Asked("POST", f"{mine}/claim", {"worker_id": "w", "lease": 60, "claim_id": "c"}),
        Asked("PUT", f"{mine}/result", result), Asked("PUT", f"{mine}/result", {**result, "artifacts": [file]}),
        Asked("PUT", f"{mine}/result", {"success": True, "result_upload": NOBODY}),
        Asked("POST", f"{API_ROOT}/results", {"results": [{**result, "job_id": job}, {**result, "job_id": "x"}]}),
        Asked("POST", f"{mine}/log", lines), Asked("PUT", f"{mine}/checkpoint", {"checkpoint": "c" * 99}),
        Asked("PUT", f"{mine}/checkpoint", {"checkpoint_upload": NOBODY}),
        Asked("GET", f"{mine}/checkpoint", None, "Range: bytes=1-5\r\nIf-Range: x\r\n"),
        Asked("POST", f"{mine}/heartbeat", {"progress": 0.5, "message": "m"}),
        Asked("PUT", f"{mine}/progress", {"percentage": 5, "message": "m"}),
        Asked("POST", f"{mine}/release", {}), Asked("POST", f"{mine}/cancel"), Asked("POST", f"{mine}/retry"),
        Asked("GET", batch), Asked("GET", f"{API_ROOT}/scaling"), Asked("GET", f"{API_ROOT}/scaling/a"),
        Asked("GET", f"{API_ROOT}/continuations?limit=1&state=sent"),
        Asked("POST", f"{API_ROOT}/continuations/resend?job_id={job}"),
        Asked("GET", f"{WEBHOOKS_BASE}?limit=1&state=failed&cursor=x"),
        Asked("POST", f"{WEBHOOKS_BASE}/resend?job_id={job}&n=1"),
        Asked("POST", KEYS_BASE, {"name": "n", "scopes": ["read"], "content_types": ["a"]}),
        Asked("GET", f"{KEYS_BASE}?limit=2&cursor=x"), Asked("DELETE", f"{KEYS_BASE}/{key}"),
        Asked("POST", f"{KEYS_BASE}/{key}/webhook-secret"),
        Asked("GET", f"{API_ROOT}/workers?limit=2&cursor=x"), Asked("POST", f"{worker}/resume", {"key": "k"}),
        Asked("POST", f"{worker}/pause", {"reason": "r", "seconds": 1}), Asked("POST", f"{worker}/evict"),
        Asked("POST", f"{worker}/drain", {"reason": "r", "seconds": 1}),
        Asked("POST", f"{API_ROOT}/workers/evict", {"worker_ids": ["w1", "w2"]}),
        Asked("POST", f"{API_ROOT}/uploads", None, f"{TUS}Upload-Length: 5\r\nUpload-Metadata: filename QQ==\r\n"),
        Asked("PATCH", upload, {"x": 1}, f"{TUS}Upload-Offset: 0\r\nUpload-Checksum: sha256 AAAA\r\n"),
        Asked("GET", upload, None, TUS), Asked("HEAD", upload, None, TUS), Asked("DELETE", upload, None, TUS),
        Asked("OPTIONS", f"{API_ROOT}/uploads", None, TUS), Asked("TRACE", API_BASE),
        *[Asked("GET", f"/{path}") for path in ("health", "healthz", "readyz", "metrics", f"docs/{job}")],
        Asked("GET", "/openapi.json"),
        *_pages(job, key),
    ]  # fmt: skip


def _pages(job: str, key: str) -> list[Asked]:
    """Return the dashboard's requests; forms lack their token, bench/attack.py may add it and its session."""
    csrf = {"csrf": "0" * 64}
    some = {"asked": "cancel", "status": "pending", "content_type": "a"}
    seen = ("", "login", "history?span=7d", "sweeps", "jobs?status=pending&cursor=x", "jobs/bulk?asked=cancel",
            "batches", f"batches/{job}", "continuations?state=x", "webhooks?cursor=x", "workers?cursor=x",
            "keys?cursor=x", f"jobs/{job}", f"jobs/{job}/result", f"jobs/{job}/source", f"jobs/{job}/artifacts/a",
            "static/style.css", "static/..%2f..%2fx")  # fmt: skip
    sent = {"login": {"key": key}, "logout": {}, "jobs/bulk": some, f"jobs/{job}/cancel": {}, f"jobs/{job}/retry": {},
            "continuations/resend": {"job_id": job, "n": "1"}, "webhooks/resend": {"job_id": job, "n": "1"},
            "keys": {"name": "n", "scopes": "read", "callback_url": "https://a.example.org/"},
            "keys/revoke": {"prefix": key, "made": "true"}, "workers/pause": {"worker_id": "w1", "seconds": "1"},
            "workers/drain": {"worker_id": "w1"}, "workers/evict": {"worker_id": "w1"},
            "workers/resume": {"worker_id": "w1"}}  # fmt: skip
    forms = [Asked("POST", f"/ui/{path}", {**csrf, **fields}) for path, fields in sent.items()]
    return [*[Asked("GET", f"/ui/{path}") for path in seen], *forms]
