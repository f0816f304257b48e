"""The requests of bench/hostile.py, and how they are sent."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections import Counter
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import orjson
import requests

from bench.attack_routes import FORM, requests_of
from bridge.names import API_BASE

DRIPPING = 40  # connections
PATIENCE = 30.0  # seconds for an answer; a sender closes its half once everything is sent
STRANGE: list[object] = [
    None, True, -1, 0, 2**53 + 1, 10**30, 1.5, 1e308, -0.0, "", "\x00", "\ud800", "a" * 70_000, [], {}, [[]], {"": {}},
    "../../etc/passwd", "'; DROP TABLE remote_jobs; --", "{{7*7}}", "\u202e", "<script>", "9" * 400, ["x"] * 5000,
]  # fmt: skip
NUMBERS = [b"NaN", b"1e999", b"-1e999", b"01", b"1.", b"9" * 6000, b"1e-400", b"Infinity", b'"\\ud800"', b"[" * 5000]
WORDS = [b"\r\n", b"\n", b"\x00", b" ", b":", b"%00", b"%2e%2e/", b"\xff", b"chunked", b"bytes=0-,1-", b"A" * 9000]
BROKEN = [
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"Content-Length: 2, 3\r\n\r\n{}",
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: +2\r\n\r\n{}",
    b"X: y\nContent-Length: 2\n\n{}",
    b"X: y\r\n z\r\nContent-Length: 2\r\n\r\n{}",
    b"X : y\r\nContent-Length: 2\r\n\r\n{}",
    b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n{}\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Content-Length: 500\r\n\r\n{}",
]
HEADS = [
    "Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: chunked", "Range: bytes=5-1",
    "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "Expect: x", "X-Forwarded-For: ' OR 1", "Host: \x00",
    "Idempotency-Key: " + "k" * 300, "X-Lease-Token: \xff", "X-Request-ID: a b", "If-None-Match: *", "Upgrade: h2c",
]  # fmt: skip


class Attack:
    """One thread's requests; `answers` counts what came back, `bad` collects what must not."""

    def __init__(self, port: int, key: str, job_ids: list[str], source: str, seed: int) -> None:
        self.port, self.key, self.job_ids, self.source = port, key, job_ids, source
        self.chance = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.bad: list[tuple[bytes, bytes]] = []
        self.accepted: dict[str, Any] = {}  # job ID → its task_options, as they were sent
        self.connection: socket.socket | None = None
        self.session = self.csrf = ""  # of the dashboard: header lines, and the token of its forms

    def sign_in(self) -> None:
        """Begin a session of the dashboard, where this key may have one."""
        url, ours = f"http://127.0.0.1:{self.port}/ui", {"Sec-Fetch-Site": "same-origin"}
        browser = requests.Session()
        browser.post(f"{url}/login", {"key": self.key}, headers=ours, timeout=PATIENCE, allow_redirects=False)
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', browser.get(f"{url}/", timeout=PATIENCE).text)
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        self.session = f"Cookie: {cookies}\r\nSec-Fetch-Site: same-origin\r\n" if cookies else ""
        self.csrf = "" if token is None else token[1]

    def run(self, count: int) -> None:
        for _ in range(count):
            sent, body = self.request()
            self.once(sent, body)

    def head(self, method: str, path: str) -> bytes:
        return f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.key}\r\n".encode()

    def request(self) -> tuple[bytes, bytes | None]:
        """Return the bytes of a request, and its body if nothing else was bent."""
        chance = self.chance
        asked = chance.choice(requests_of(chance.choice([*self.job_ids, "x", "%00", "../x"]), self.source, chance))
        head = self.head(asked.method, asked.path) + asked.lines.encode()
        kind = (FORM if asked.is_form else "application/json").encode()
        if asked.path.startswith("/ui/") and chance.random() < 0.8:
            head += self.session.encode()
        if chance.random() < 0.08:
            return head + b"Content-Type: %s\r\n" % kind + chance.choice(BROKEN), None
        raw = b"" if asked.body is None else self.bent_form(asked.body) if asked.is_form else self.bent_json(asked.body)
        bent = chance.choice(HEADS) if chance.random() < 0.15 else ""
        if bent:
            head += bent.encode("latin-1") + b"\r\n"
        if raw or chance.random() < 0.1:
            head += b"Content-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(raw))
        whole = bytearray(head + b"\r\n" + raw)
        if chance.random() >= 0.25:
            return bytes(whole), None if bent.startswith("Transfer-Encoding") else raw  # no chunk ends it
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(whole))
            whole[at : at + chance.randint(0, 2)] = chance.choice([*WORDS, bytes([chance.randrange(256)])])
        return bytes(whole), None

    def bent_form(self, body: dict[str, object]) -> bytes:
        chance = self.chance
        given: dict[str, object] = {**body, "csrf": self.csrf} if chance.random() < 0.8 else dict(body)
        if chance.random() < 0.5:
            given[chance.choice([*given, "unknown"])] = str(chance.choice(STRANGE)).encode(errors="replace")
        return urlencode(given).encode()

    def bent_json(self, body: dict[str, object]) -> bytes:
        chance = self.chance
        given = dict(body)
        if chance.random() < 0.5 and given:
            given[chance.choice([*given, "lease_token", "unknown"])] = chance.choice(STRANGE)
        try:
            raw = orjson.dumps(given)
        except TypeError:  # what orjson cannot encode, the server has to refuse
            raw = repr(given).replace("'", '"').encode("utf-8", "surrogatepass")
        if chance.random() < 0.2:
            raw = raw.replace(b"1", chance.choice(NUMBERS), 1)
        if chance.random() < 0.1:
            raw = raw.replace(b"{", b'{"x":1,"x":2,', 1)
        return raw

    def once(self, sent: bytes, body: bytes | None) -> None:
        try:
            if self.connection is None:
                self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
            self.connection.sendall(sent)
            if body is None:  # it may be incomplete, and the server would wait
                self.connection.shutdown(socket.SHUT_WR)
            received = self.answer(self.connection, bodiless=sent.startswith(b"HEAD "))
        except TimeoutError:
            received = b"no answer"
        except OSError:
            received = b"closed"
        status = self.note(sent, received)
        if body is not None and status == "200" and sent.startswith(b"POST %s HTTP" % API_BASE.encode()):
            self.accepted[orjson.loads(received.partition(b"\r\n\r\n")[2])["job_id"]] = json.loads(body)
        # The rest of an answer, or the answer to a smuggled request, must not be taken for the next one's answer.
        if self.connection is not None and (body is None or status != "200" or self.chance.random() < 0.05):
            self.connection.close()
            self.connection = None

    def note(self, sent: bytes, received: bytes) -> str:
        """Count what came back: its status, or why there is none."""
        status = received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.1 ") else received.decode("latin-1")
        self.answers[status] += 1
        if status.startswith("5") or status == "no answer":
            self.bad.append((sent, received))
        return status

    def answer(self, connection: socket.socket, *, bodiless: bool = False) -> bytes:
        """Return one whole answer, or only the head for a HEAD."""
        received = b""
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            whole = length is None or len(body) >= int(length[1]) or b" 304 " in head[:20]
            if re.search(rb"transfer-encoding: chunked", head, re.IGNORECASE):
                whole = body.endswith(b"\r\n0\r\n\r\n")
            if end and (whole or bodiless):
                return received
            if not (piece := connection.recv(65536)):
                return received or b"closed"
            received += piece


class Slow(Attack):
    """Requests that come byte by byte, on many connections at once, until the others have finished."""

    def drip(self, ended: threading.Event) -> None:
        dripping: list[tuple[socket.socket, bytes, int]] = []
        while not ended.wait(0.05):
            while len(dripping) < DRIPPING:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
                dripping.append((connection, self.request()[0], 0))
            still = []
            for connection, whole, at in dripping:
                upto = at + self.chance.choice([1, 1, 2, 30])
                try:
                    connection.sendall(whole[at:upto])
                    if upto < len(whole) and upto < 3000 and self.chance.random() > 0.001:
                        still.append((connection, whole, upto))
                        continue
                    connection.shutdown(socket.SHUT_WR)
                    received = self.answer(connection, bodiless=whole.startswith(b"HEAD "))
                except TimeoutError:
                    received = b"no answer"
                except OSError:
                    received = b"closed"
                self.note(whole, received)
                connection.close()
            dripping = still
        for connection, _, _ in dripping:
            connection.close()


class Endless(Attack):
    """Chunks and heads without end, one connection after the other; each has to be cut off."""

    def pour(self, ended: threading.Event) -> None:
        chunk = b"8000\r\n" + b"[" * 0x8000 + b"\r\n"
        while not ended.wait(1):
            head = self.head("POST", API_BASE) + b"Content-Type: application/json\r\n"
            endless = self.chance.choice(
                [(head + b"Transfer-Encoding: chunked\r\n\r\n", chunk), (head, b"X: yy\r\n" * 99)]
            )
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
                received = b"closed"
                try:
                    connection.sendall(endless[0])
                    while not ended.is_set():
                        connection.sendall(endless[1])
                    continue  # it was not cut off before the end of the attack
                except TimeoutError:
                    received = b"no answer"
                except OSError:
                    with suppress(OSError):  # what was answered before the connection ended
                        received = connection.recv(65536) or b"closed"
            self.note(endless[0], received)
