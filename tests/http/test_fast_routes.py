"""Creates, polls and results are answered alike before Flask and by it: status, headers and body, byte for byte."""

import io
import json
import random
import re
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from sqlalchemy.exc import OperationalError
from werkzeug.datastructures import Headers
from werkzeug.test import Client, EnvironBuilder

from api.create_app import create_app
from api.fast_routes import FastRoutes
from bridge.admission import keys
from bridge.admission.key_cache import KeyCache
from bridge.admission.limits import Limits
from bridge.jobs import submit_result
from bridge.names import API_BASE
from tests.support.core import Core

UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
MOMENT = re.compile(rb'"20\d\d-[^"]*"')
TOKEN = re.compile(rb'"lease_token":"[^"]*"')

CREATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "options": {"task_options": {"a": [1, 2.5, None, True, "ü\u2028"], "b": {"c": {}}}},
    "priority": {"priority": "high", "max_retries": 0, "timeout_seconds": 5000, "queue_timeout_seconds": 9000},
    "later": {"available_at": "2999-01-01T00:00:00+02:00"},
    "past": {"available_at": "2000-01-01T00:00:00Z"},
    "year": {"available_at": "9999-01-01T00:00:00Z"},
    "digest": {"source_sha256": "aB" * 32},
    "bad digest": {"source_sha256": "g" * 64},
    "no file": {"source_file_path": "/nowhere/at/all"},
    "unknown field": {"colour": "red"},
    "wrong type": {"max_retries": "3"},
    "bad content type": {"content_type": "NO"},
    "missing": {"ingestion_task_id": None},
    "long": {"ingestion_task_id": "x" * 256},
    "large": {"task_options": {"a": "x" * 70_000}},
    "NUL": {"task_options": {"a": "\0"}},
    "huge integer": {"task_options": {"a": 2**60}},
}
RAW = [b"", b"{", b"[]", b"null", b"1", b"{}", b'{"a":1,"a":2}', b"\xff", b'{"a":NaN}', b'"text"', b"[" * 100]
QUERIES = [
    "worker_id=w&content_types=audio&wait=0", "worker_id=w&content_types=audio,video&wait=0&max_jobs=3",
    "worker_id=w&content_types=audio&wait=0.2&lease=3000&claim_id=c1",
    "worker_id=w&content_types=audio&wait=0&claim_id=c1",
    "worker_id=w", "content_types=audio", "", "worker_id=&content_types=audio", "worker_id=w&content_types=NO&wait=0",
    "worker_id=w&worker_id=v&content_types=audio&wait=0", "worker_id=w&content_types=audio&wait=61",
    "worker_id=w%20x&content_types=audio&wait=0", "worker_id=w+x&content_types=audio&wait=0",
    "worker_id=w&content_types=,",
    "worker_id=w&content_types=audio&wait=-1", "worker_id=w&content_types=audio&max_jobs=0",
    "a=b&worker_id=w&content_types=audio&wait=0",
    "worker_id=w&content_types=audio&wait=0&slots_busy=1&slots_free=2", "worker_id=w&content_types=image&wait=0", "=&",
    "worker_id=w&content_types=audio&wait", "worker_id=w&content_types=audio&wait=", "worker_id=w;content_types=audio",
]  # fmt: skip
RESULTS = [
    {"success": True, "content": "text", "metadata": {"a": 1}, "processing_time": 1.5}, {"success": True},
    {"success": False, "error_message": "no", "retryable": False}, {"success": False},
    {"success": True, "content": "\0"},
    {"success": "yes"}, {}, {"success": True, "metadata": []}, {"success": True, "processing_time": -1},
    {"success": True, "lease_token": "wrong"}, {"success": True, "unknown": 1}, {"success": True, "retryable": None},
    {"success": True, "content": "x" * 70_000}, {"success": True, "lease_token": 7},
]  # fmt: skip
HEADERS = [
    {}, {"X-Request-ID": "mine"}, {"X-Request-ID": "not mine"}, {"Authorization": "Bearer wrong"},
    {"Authorization": ""},
    {"Authorization": "bearer {key}"}, {"Authorization": "", "X-API-Key": "{key}"}, {"X-Lease-Token": "other"},
    {"Idempotency-Key": "once"}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=latin-1"},
    {"Content-Encoding": "gzip"}, {"Content-Type": "application/json; charset=UTF-8"}, {"Host": "a b"},
]  # fmt: skip


class Side:
    """An application of its own on the one database, and how many requests Flask has seen there."""

    def __init__(self, runtime, on):
        runtime = replace(runtime, settings=runtime.settings.model_copy(update={"fast_routes": on}))
        self.app = create_app(runtime, reserved=runtime)
        self.flask_saw = 0
        outer = self.app.wsgi_app
        assert isinstance(outer, FastRoutes) == on
        inner = outer._flask if isinstance(outer, FastRoutes) else outer

        def counted(environ, start_response):
            self.flask_saw += 1
            return inner(environ, start_response)

        if isinstance(outer, FastRoutes):
            outer._flask = counted
        self.client = Client(self.app)

    def ask(self, method, path, query="", body=None, headers=None, key="", seen=lambda answer: None):
        sent = {"Authorization": f"Bearer {key}", "X-Request-ID": "one", "Content-Type": "application/json"}
        sent |= {name: value.format(key=key) for name, value in (headers or {}).items()}
        if body is None:
            del sent["Content-Type"]
        builder = EnvironBuilder(
            path, method=method, query_string=query, headers=Headers([(n, v) for n, v in sent.items() if v])
        )
        if body is not None:
            builder.input_stream = io.BytesIO(body)
            builder.content_length = len(body)
        environ = builder.get_environ()
        environ["RAW_URI"] = path + (f"?{query}" if query else "")
        answer = self.client.open(environ)
        seen(answer)
        data = TOKEN.sub(b'"lease_token":""', MOMENT.sub(b'""', UUID.sub(b"ID", answer.data)))
        told = [
            (name, value)
            for name, value in answer.headers
            if sent["X-Request-ID"] in ("one", "mine") or name != "X-Request-ID"
        ]
        if answer.status_code == 429:
            told = [one for one in told if one[0] != "Retry-After"]
        return answer.status, [one for one in told if one[0] != "Content-Length" or b"ID" not in data], data


@pytest.fixture
def sides(make_runtime):
    # No clock of a job may run out, and no retry become due: both look at one after the other.
    runtime = make_runtime(ack_seconds="3600", retry_backoff="base=3600")
    with runtime.engine.begin() as connection:
        key = keys.create_key(connection, "k", ["submit", "work"])
        small = keys.create_key(connection, "s", ["work"], content_types=["video"])
    fast, slow = Side(runtime, True), Side(runtime, False)
    core = Core(runtime)

    def alike(method, path, query="", body=None, headers=None, key=key):
        for side in (fast, slow):  # the key is at hand from here on
            side.client.get(f"{API_BASE}/nothing/status", headers={"Authorization": f"Bearer {key}"})
        told = [
            side.ask(method, path(side) if callable(path) else path, query, body, headers, key) for side in (fast, slow)
        ]
        assert told[0] == told[1]
        return told[0]

    return alike, core, fast, slow, small


def fields(core, **more):
    given = {"source_file_path": str(core.source), "content_type": "audio", "ingestion_task_id": "task", **more}
    return json.dumps({name: value for name, value in given.items() if value is not None}).encode()


def seen_by_flask(fast, do):
    before = fast.flask_saw
    do()
    return fast.flask_saw - before - 1  # the look-up of the key


def test_creates_are_answered_alike(sides):
    alike, core, fast, _, _ = sides
    for more in CREATES.values():
        alike("POST", f"{API_BASE}/", body=fields(core, **more))
    for raw in RAW:
        alike("POST", f"{API_BASE}/", body=raw)
    for headers in HEADERS:
        alike("POST", API_BASE, body=fields(core), headers=headers)
    for path in (f"{API_BASE}//", f"/{API_BASE}/", f"{API_BASE}/%20", f"{API_BASE}/batch"):
        alike("POST", path, body=fields(core))
    assert seen_by_flask(fast, lambda: alike("POST", f"{API_BASE}/", body=fields(core))) == 0
    assert seen_by_flask(fast, lambda: alike("POST", f"{API_BASE}/", body=fields(core, colour=1))) == 1


def test_polls_are_answered_alike(sides):
    alike, core, fast, _, small = sides
    for query in QUERIES:
        for _ in range(6):  # enough for both
            core.create(task_options={"a": 1})
        alike("GET", f"{API_BASE}/poll", query)
    for _ in range(2):
        core.create("video", task_options={"a": "x" * 40_000})
    _, _, answer = alike("GET", f"{API_BASE}/poll", QUERIES[0].replace("audio", "video"))
    assert len(answer) > 40_000
    for headers in HEADERS:
        alike("GET", f"{API_BASE}/poll", QUERIES[0].replace("audio", "nothing"), headers=headers)
    alike("GET", f"{API_BASE}/poll", QUERIES[0], key=small)
    alike("HEAD", f"{API_BASE}/poll", QUERIES[0])
    alike("GET", f"{API_BASE}/poll/", QUERIES[0])
    assert seen_by_flask(fast, lambda: alike("GET", f"{API_BASE}/poll", QUERIES[0])) == 0


def test_results_are_answered_alike(sides):
    alike, core, fast, slow, _ = sides
    alike("GET", f"{API_BASE}/poll", QUERIES[0])
    key_id = next(iter(fast.app.extensions["bridge"].keys._known.values())).caller

    def held():
        jobs = {side: core.claim(core.create(), key=key_id, lease=None, acknowledge=True) for side in (fast, slow)}
        return lambda side: f"{API_BASE}/{jobs[side].job_id}/result"

    for result in RESULTS:
        place = held()
        alike("PUT", place, body=json.dumps(result).encode())
        alike("PUT", place, body=json.dumps(result).encode())  # again
        alike("PUT", place, body=json.dumps({"success": True, "content": "other"}).encode())
    for raw in RAW:
        alike("PUT", held(), body=raw)
    for headers in HEADERS:
        alike("PUT", held(), body=json.dumps(RESULTS[0]).encode(), headers=headers)
    for path in ("nothing", "0190b5d0-0000-7000-8000-000000000000", "0190B5D0-0000-7000-8000-00000000000G"):
        alike("PUT", f"{API_BASE}/{path}/result", body=b'{"success": true}')
    place = held()
    assert seen_by_flask(fast, lambda: alike("PUT", place, body=json.dumps(RESULTS[0]).encode())) == 0


def test_made_up_requests_are_answered_alike(sides):
    alike, core, *_ = sides
    dice = random.Random(7)
    for _ in range(30):
        body = bytearray(fields(core, **dice.choice(list(CREATES.values()))))
        if len(body) > 5000:
            continue
        for _ in range(dice.randrange(3)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        alike("POST", f"{API_BASE}/", body=bytes(body), headers=dice.choice(HEADERS))
        query = bytearray(dice.choice(QUERIES).replace("audio", "nothing").encode() or b"a")
        query[dice.randrange(len(query))] = dice.choice(b"abz=&,.%+0 ")
        if re.search(rb"(^|&)wait=0(&|$)", query):  # any other may wait
            alike("GET", f"{API_BASE}/poll", query.decode(), headers=dice.choice(HEADERS))


def test_a_request_counts_once_and_its_limit_is_flasks_to_tell(make_runtime):
    runtime = make_runtime(limits="requests=5")
    with runtime.engine.begin() as connection:
        key = keys.create_key(connection, "k", ["submit", "work"])
    side = Side(runtime, True)
    asked = [side.ask("GET", f"{API_BASE}/poll", QUERIES[0], key=key)[0][:3] for _ in range(7)]
    assert asked == ["200"] * 5 + ["429"] * 2


def test_a_key_that_is_not_at_hand_is_looked_up_before_flask(sides, monkeypatch):
    _, core, fast, slow, _ = sides
    for scopes in (["submit"], ["work"]):
        with core.engine.begin() as connection:
            key = keys.create_key(connection, "new", scopes)
        fast.flask_saw = 0
        asked = [side.ask("POST", f"{API_BASE}/", body=fields(core), key=key) for side in (fast, slow)]
        assert asked[0] == asked[1]
        assert (asked[0][0][:3], fast.flask_saw) == (("200", 0) if scopes == ["submit"] else ("403", 1))

    def away(*_):
        raise OperationalError("", {}, psycopg2.OperationalError("away"))

    monkeypatch.setattr(KeyCache, "_look", away)
    with core.engine.begin() as connection:
        key = keys.create_key(connection, "another", ["submit"])
    asked = [side.ask("POST", f"{API_BASE}/", body=fields(core), key=key) for side in (fast, slow)]
    assert asked[0] == asked[1]
    assert asked[0][0][:3] == "503"


class Unforeseen(Exception):
    """An error that nobody thought of."""


def test_an_unforeseen_error_is_answered_alike(sides, monkeypatch):
    alike, core, fast, *_ = sides

    def defect(*_, **__):
        raise Unforeseen("secret")

    job_id = core.create()
    for owner, name, request in [
        (Limits, "submit", ("POST", f"{API_BASE}/", "", fields(core))),
        (Limits, "room", ("GET", f"{API_BASE}/poll", QUERIES[0])),
        (submit_result, "success_of", ("PUT", f"{API_BASE}/{job_id}/result", "", b'{"success": true}')),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, defect)
            status, headers, answer = alike(*request)
        assert (status[:3], json.loads(answer)["code"]) == ("500", "internal")
        assert ("Content-Type", "application/problem+json") in headers
        assert b"secret" not in answer
    with monkeypatch.context() as patched:
        patched.setattr(fast.app.wsgi_app, "_read", defect)
        status, _, answer = fast.ask("POST", f"{API_BASE}/", body=fields(core), key="any")
    assert (status[:3], json.loads(answer)["code"]) == ("500", "internal")
