"""The attacks of bench/hostile.py besides the hundred thousand bent requests, each at one thing that could grow."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from bridge.names import API_BASE, API_ROOT, KEYS_BASE

JSON = {"Content-Type": "application/json"}
ZEROS = b"0," * 245_000
DEEP = b"".join(b'{"' + bytes([97 + level % 26]) * 50 + b'":' for level in range(60))
DEAR = [
    DEEP + b"[" + ZEROS + b"9007199254740993]" + b"}" * 60,
    DEEP + b"[" + b"[]," * 120_000 + b"1e999]" + b"}" * 60,
    b"[" * 60 + ZEROS + b"18446744073709551617" + b"]" * 60,
    b"{" + b",".join(b'"m%d":0' % n for n in range(240_000)) + b',"m1":1}',
    b"[" + b'",",' * 3_000_000 + b'""]',
    b'"' + b',\\"' * 5_000_000,
]
UNKNOWN = b"{" + b",".join(b'"n%d":0' % n for n in range(245_000)) + b"}"


@dataclass
class Target:
    """What is attacked: a running bridge, with a key of each scope."""

    port: int
    keys: dict[str, str]  # by scope
    files: Path
    small: bool  # a short run
    answers: Counter[str]
    lock: threading.Lock

    def __post_init__(self) -> None:
        self.source = str(self.files / "source.bin")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def some(self, many: int) -> int:
        """Return this number, or a tenth of it in a short run."""
        return max(1, many // 10) if self.small else many

    def new(self, content_type: str = "a", **fields: Any) -> dict[str, Any]:
        return {
            "source_file_path": self.source,
            "content_type": content_type,
            "ingestion_task_id": "t",
            "task_options": {},
            **fields,
        }

    def session(self, scope: str = "admin") -> requests.Session:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.keys[scope]}"
        session.hooks["response"] = lambda answer, **_: self.note(str(answer.status_code))
        return session

    def note(self, status: str) -> None:
        with self.lock:
            self.answers[status] += 1

    def raw(self, into: ExitStack, sent: bytes) -> socket.socket:
        """Open a connection, send this, and keep it open until `into` ends."""
        connection = into.enter_context(closing(socket.create_connection(("127.0.0.1", self.port), 30)))
        with suppress(OSError):
            connection.sendall(sent)
        return connection

    def head(self, method: str, path: str, *more: str, scope: str = "admin") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {self.keys[scope]}", *more]
        return "\r\n".join([*lines, "", ""]).encode()


def together(count: int, work: Callable[[int], None]) -> None:
    """Run the work this many times in parallel."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def deep_places(target: Target) -> None:
    """Send small bodies that are expensive to parse."""

    def send(number: int) -> None:
        session = target.session(["admin", "submit"][number % 2])
        for turn in range(target.some(30)):
            session.post(target.url + API_BASE, data=DEAR[(number + turn) % len(DEAR)], headers=JSON, timeout=120)

    together(4, send)


def unknown_names(target: Target) -> None:
    """Send bodies of 245 000 names that no schema knows."""

    def send(number: int) -> None:
        session = target.session()
        for _ in range(target.some(30)):
            path = [API_BASE, KEYS_BASE, f"{API_BASE}/batch"][number % 3]
            session.post(target.url + path, data=UNKNOWN, headers=JSON, timeout=120)

    together(6, send)


def growing_labels(target: Target) -> None:
    """Invent content types as a producer and a worker, and read /metrics meanwhile."""

    def send(number: int) -> None:
        submit, work = target.session("submit"), target.session("work")
        for turn in range(target.some(20)):
            jobs = [target.new(f"l{number}-{turn}-{n}") for n in range(500)]
            submit.post(f"{target.url}{API_BASE}/batch", json={"jobs": jobs}, timeout=120)
            types = ",".join(job["content_type"] for job in jobs[:20])
            query = {"worker_id": "w", "content_types": types, "wait": "0", "max_jobs": "20"}
            work.get(f"{target.url}{API_BASE}/poll", params=query, timeout=120)
            submit.get(target.url + "/metrics", timeout=120)

    together(4, send)


def made_up_workers(target: Target) -> None:
    """Invent workers that poll once, and pause others; then read the list of workers."""

    def send(number: int) -> None:
        work, admin = target.session("work"), target.session()
        for turn in range(target.some(2500)):
            query = {"worker_id": f"{'w' * 200}{number}-{turn}", "content_types": "none", "wait": "0"}
            work.get(f"{target.url}{API_BASE}/poll", params=query, timeout=120)
        for turn in range(target.some(200)):
            path = f"{API_ROOT}/workers/p{number}-{turn}/pause"
            admin.post(target.url + path, json={"reason": "r" * 500, "seconds": 5}, timeout=120)
        for _ in range(5):
            admin.get(f"{target.url}{API_ROOT}/workers", timeout=120)

    together(4, send)


def unfinished_heads(target: Target) -> None:
    """Hold connections that have sent half a head, or nothing."""
    with ExitStack() as held:
        for number in range(target.some(2000)):
            target.raw(held, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " if number % 2 else b"")
        time.sleep(5)


def slow_bodies(target: Target) -> None:
    """Send bodies of 15 MB that stop before their end, with keys of two scopes."""
    head = ("Content-Type: application/json", "Content-Length: 15000000")
    with ExitStack() as held:
        for number in range(target.some(200)):
            scope = ["submit", "admin"][number % 2]
            connection = target.raw(held, target.head("POST", API_BASE, *head, scope=scope))
            connection.settimeout(0.2)
            with suppress(OSError):  # not all of it is accepted
                connection.sendall(b'{"x":"' + b"x" * (14_000_000 if number % 10 == 0 else 500_000))
        time.sleep(5)


def huge_headers(target: Target) -> None:
    """Send heads as large as allowed, and larger."""

    def send(number: int) -> None:
        for turn in range(target.some(100)):
            lines = [f"X-{n}: {'y' * (8000 if turn % 2 else 100)}" for n in range(90 if turn % 2 else 95 + number)]
            with ExitStack() as held:
                connection = target.raw(held, target.head("GET", API_BASE, *lines))
                with suppress(OSError):
                    target.note(connection.recv(4096)[9:12].decode("latin-1") or "closed")

    together(8, send)


def unread_answers(target: Target) -> None:
    """Request results of 15 MiB and a claim of 30 MiB on many connections, and read none of them."""
    submit, work = target.session("submit"), target.session("work")
    created = submit.post(target.url + API_BASE, json=target.new("large"), timeout=60).json()["job_id"]
    query = {"worker_id": "w", "content_types": "large", "lease": "600"}
    job = work.get(f"{target.url}{API_BASE}/poll", params=query, timeout=60).json()["jobs"][0]
    body = {"success": True, "content": "x" * (15 * 2**20), "lease_token": job["lease_token"]}
    work.put(f"{target.url}{API_BASE}/{created}/result", json=body, timeout=120)
    for _ in range(2):
        options = {"x": "x" * (15 * 2**20)}
        submit.post(target.url + API_BASE, json=target.new("heavy", task_options=options), timeout=120)
    path = f"{API_BASE}/poll?worker_id=w&content_types=heavy&max_jobs=2&claim_id=c&lease=600"
    with ExitStack() as held:
        for _ in range(target.some(40)):
            target.raw(held, target.head("GET", f"{API_BASE}/{created}/result", scope="read"))
            target.raw(held, target.head("GET", path, scope="work"))
            time.sleep(0.05)
        time.sleep(15)


def large_lists(target: Target) -> None:
    """Request lists and explanations of jobs that are as large as allowed."""
    submit, read = target.session("submit"), target.session("read")
    for _ in range(target.some(40)):
        options = {"x": "x" * 2**20}
        made = submit.post(target.url + API_BASE, json=target.new("bulky", task_options=options), timeout=120)
    job_id = made.json()["job_id"]

    def send(number: int) -> None:
        for _ in range(target.some(50)):
            for path in ("?limit=500", f"/{job_id}", f"/{job_id}/explain", "/statistics"):
                read.get(target.url + API_BASE + path, timeout=120)

    together(4, send)


def bent_forms(target: Target) -> None:
    """Attack the dashboard: forged sessions and tokens, oversized and numerous forms, and all pages at once."""
    mine = requests.Session()
    mine.hooks["response"] = lambda answer, **_: target.note(str(answer.status_code))
    mine.headers.update({"Sec-Fetch-Site": "same-origin", "Origin": target.url, "Accept": "text/html"})
    mine.post(target.url + "/ui/login", data={"key": target.keys["admin"]}, timeout=60)
    forged = [{"Cookie": f"jobbridge={n * 'A'}.{n}.x"} for n in (1, 100, 4000)] + [{"Origin": "http://evil.example"}]
    forms = [
        {"csrf": "0" * 64}, {"csrf": "f" * 70_000}, {f"n{n}": "x" for n in range(500)},
        {"worker_id": "\x00" * 100, "csrf": "\u202e"}, {"asked": "cancel", "limit": "9" * 5000},
    ]  # fmt: skip
    resent = (f"{kind}/resend" for kind in ("continuations", "webhooks"))
    actions = ("login", "logout", "jobs/bulk", "keys", "workers/evict", "workers/pause", *resent)
    lists = ("jobs", "batches", "workers", "continuations", "webhooks", "sweeps", "keys")
    pages = ("", *lists, "history?span=7d", *(f"{one}?cursor={'A' * 4000}" for one in lists[:5]), "webhooks?state=%00")

    def send(number: int) -> None:
        for turn in range(target.some(40)):
            for action in actions:
                headers = forged[turn % len(forged)] if turn % 2 else {}
                form = forms[(turn + number) % len(forms)]
                mine.post(f"{target.url}/ui/{action}", data=form, headers=headers, timeout=120, allow_redirects=False)
            for page in pages:
                mine.get(f"{target.url}/ui/{page}", timeout=120, allow_redirects=False)

    together(4, send)


def bent_uploads(target: Target) -> None:
    """Announce files and leave them, or send them in crumbs, too long, at wrong offsets, with wrong sums, stalled."""
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    sums = ["sha256 AAAA", "sha1 " + "A" * 3000, "md5 x", "sha512"]
    named = ["filename " + "QUFB" * 1000, "filename ////", ",,,", "job_id QQ==", "a " * 2000]

    def send(number: int) -> None:
        session = target.session(["submit", "admin", "work"][number % 3])
        for turn in range(target.some(30)):
            announced = {"Upload-Length": ["9" * 30, "3000000", "-1", "5"][turn % 4] if turn % 5 else "3000000"}
            if turn % 7 == 0:
                announced["Upload-Metadata"] = named[turn % len(named)]
            made = session.post(f"{target.url}{API_ROOT}/uploads", headers=tus | announced, timeout=120)
            if (place := made.headers.get("Location")) is None:
                continue
            for crumb in range(12):
                how = {"Upload-Offset": str(crumb if crumb % 3 else 10**12)}
                if crumb % 4 == 3:
                    how["Upload-Checksum"] = sums[crumb % len(sums)]
                size = 4_000_000 if crumb == 11 else 1
                session.patch(target.url + place, data=b"x" * size, headers=tus | how, timeout=120)

    together(6, send)
    patch = [f"{name}: {value}" for name, value in tus.items()]
    with ExitStack() as held:
        made = target.session("submit").post(
            f"{target.url}{API_ROOT}/uploads", headers=tus | {"Upload-Length": "90000000"}, timeout=60
        )
        more = ("Upload-Offset: 0", "Content-Length: 90000000")
        for _ in range(target.some(200)):
            connection = target.raw(held, target.head("PATCH", made.headers["Location"], *patch, *more, scope="submit"))
            connection.settimeout(0.2)
            with suppress(OSError):
                connection.sendall(b"x" * 1_000_000)
        time.sleep(5)


KINDS: list[Callable[[Target], None]] = [
    deep_places,
    unknown_names,
    made_up_workers,
    unfinished_heads,
    slow_bodies,
    huge_headers,
    large_lists,
    bent_forms,
    bent_uploads,
    unread_answers,
    growing_labels,  # last: it uses up all the content types that a tenant may have
]
