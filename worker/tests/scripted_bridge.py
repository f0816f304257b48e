"""A real HTTP server whose answers a test scripts: one queue of answers a route, and a record of what came."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BASE = "/api/v1/remote-jobs"
JOB_ID = "0190aaaa-0000-7000-8000-000000000001"


@dataclass
class Call:
    """One request as it came."""

    route: str
    headers: dict[str, str]
    query: dict[str, str]
    body: Any
    job_id: str = ""
    path: str = ""
    method: str = ""
    raw: bytes = b""


@dataclass
class Say:
    """An answer. `cut` bytes of `data` are sent before the connection breaks; `wait` is awaited first.

    `stream` is sent in chunks without a length instead of `data`, for as long as the client reads and it yields.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes | None = None
    cut: int | None = None
    wait: threading.Event | None = None
    drop: bool = False
    stream: Iterable[bytes] | None = None


def claim(job_id: str = JOB_ID, **fields: Any) -> dict[str, Any]:
    """Return one entry of a poll's `jobs`."""
    return {
        "job_id": job_id, "content_type": "audio", "source_file_url": f"{BASE}/{job_id}/download",
        "task_options": {}, "attempt": 1, "retry_count": 0, "lease_token": f"secret-token-{job_id}",
        "timeout_at": "2099-01-01T00:00:00+00:00",
    } | fields  # fmt: skip


def jobs(*claims: dict[str, Any]) -> Say:
    """Return a poll's answer."""
    first = claims[0] if claims else {}
    return Say(body={"job_id": first.get("job_id"), "jobs": list(claims)})


def problem(status: int, code: str, **headers: str) -> Say:
    """Return an error as the bridge sends it."""
    body = {"type": "about:blank", "title": "x", "status": status, "detail": f"it is {code}", "code": code}
    return Say(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def digest(data: bytes) -> str:
    """Return a Repr-Digest."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def rest_of(data: bytes) -> Callable[[Call], Say]:
    """Return what answers a Range request as RFC 9110 says."""

    def answer(call: Call) -> Say:
        start = int(call.headers["range"].removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", "Repr-Digest": digest(data)}
        return Say(206, data=data[start:], headers=headers)

    return answer


class ScriptedBridge:
    """Routes are named by the last part of their path; each answers what was scripted, in turn.

    `certificate`: a file with it and its key, to be asked over TLS.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.closing = threading.Event()
        self._script: dict[str, list[Say | Callable[[Call], Say]]] = {}
        self._default: dict[str, Say | Callable[[Call], Say]] = {
            "poll": Say(body={"job_id": None, "jobs": []}, wait=self.closing),  # parked until the test ends
            "download": Say(data=b"source"),
            "heartbeat": Say(body={"status": "processing", "cancel_requested": False}),
            "log": Say(body={"status": "processing", "cancel_requested": False}),
            "checkpoint": Say(body={"status": "processing", "cancel_requested": False}),
            "release": Say(body={"status": "pending"}),
            "evict": Say(body={"worker_id": "w1", "released": 1}),
            "result": Say(body={"status": "completed", "ingestion_continued": True}),
            "results": self._each,
            "uploads": self.announce,
            "upload": self.append,
            "upload deleted": Say(204, data=b""),
        }
        self.uploads: list[tuple[int, bytes]] = []  # of each upload its length and what came; its ID is its place
        self._lock = threading.Lock()
        self._arrived: defaultdict[str, queue.Queue[Call]] = defaultdict(queue.Queue)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def script(self, route: str, *answers: Say | Callable[[Call], Say]) -> None:
        """Answer the next calls of `route` with these, then with the default again."""
        with self._lock:
            self._script.setdefault(route, []).extend(answers)

    def always(self, route: str, answer: Say | Callable[[Call], Say]) -> None:
        """Set the default answer of `route`."""
        with self._lock:
            self._default[route] = answer

    def next(self, route: str, seconds: float = 90) -> Call:
        """Wait for the next call of `route` that was not yet taken."""
        return self._arrived[route].get(timeout=seconds)

    def calls_left(self, route: str) -> int:
        """Return how many calls of `route` came that were not yet taken."""
        return self._arrived[route].qsize()

    def is_unasked(self) -> bool:
        """Return whether no call of any route came."""
        return all(calls.empty() for calls in self._arrived.values())

    def answer(self, call: Call) -> Say:
        """Record a call and choose its answer."""
        with self._lock:
            script = self._script.get(call.route, [])
            answer = script.pop(0) if script else self._default[call.route]
        self._arrived[call.route].put(call)
        return answer(call) if callable(answer) else answer

    def announce(self, call: Call) -> Say:
        """Begin an upload with the bytes that came at once."""
        self.uploads.append((int(call.headers["upload-length"]), call.raw))
        return Say(201, self.upload_state(len(self.uploads) - 1))

    def append(self, call: Call) -> Say:
        """Append to an upload, or tell its state."""
        place = int(call.path.rsplit("/", 1)[-1])
        if call.method == "GET":
            return Say(body=self.upload_state(place))
        length, came = self.uploads[place]
        self.uploads[place] = length, came[: int(call.headers["upload-offset"])] + call.raw
        return Say(204, data=b"")

    def upload_state(self, place: int) -> dict[str, Any]:
        """Return what the bridge tells of an upload."""
        length, came = self.uploads[place]
        sha256 = hashlib.sha256(came).hexdigest() if len(came) == length else None
        return {"upload_id": str(place), "length": length, "received": len(came), "sha256": sha256}

    def _each(self, call: Call) -> Say:
        """Answer results that came together as if each had come by itself."""
        places = []
        for sent in call.body["results"]:
            say = self.answer(Call("result", call.headers, {}, sent, sent["job_id"]))
            problem = None if say.status < 300 and not say.drop else say.body or {"status": 503, "code": "unavailable"}
            places.append({"status": (say.body or {}).get("status") if problem is None else None, "problem": problem})
        return Say(body={"results": places})

    def close(self) -> None:
        """Let parked polls go and stop the server."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that have gone: some tests make them go."""


def _handler(bridge: ScriptedBridge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            route = "upload" if parts.path.startswith("/api/v1/uploads/") else parts.path.rsplit("/", 1)[-1]
            call = Call(
                route=f"{route} deleted" if self.command == "DELETE" else route,
                headers={name.lower(): value for name, value in self.headers.items()},
                query={name: values[0] for name, values in parse_qs(parts.query).items()},
                body=json.loads(raw) if raw and "octet-stream" not in self.headers["Content-Type"] else None,
                job_id=(parts.path.split("/")[-2:-1] or [""])[0],
                path=parts.path,
                method=self.command,
                raw=raw,
            )
            say = bridge.answer(call)
            if say.wait is not None and call.query.get("wait") != "0":
                say.wait.wait(60)
            if say.drop:
                self.close_connection = True
                return
            data = say.data if say.data is not None else json.dumps(say.body or {}).encode()
            self.send_response_only(say.status)
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                "Date": self.date_time_string(),
            }
            if say.stream is not None:
                headers["Transfer-Encoding"] = "chunked"
                del headers["Content-Length"]
            headers |= say.headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if say.stream is not None:
                for piece in say.stream:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
                return
            self.wfile.write(data if say.cut is None else data[: say.cut])
            if say.cut is not None:
                self.close_connection = True

        do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _serve

    return Handler
