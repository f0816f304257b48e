"""What is shown to the outside: headers, methods, pages; and what comes in that is hardly HTTP."""

import base64
import errno
import hashlib
import json
import re
import socket
from contextlib import closing

import pytest
import requests
from flask import Flask
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError

from api.http import problems
from tests.support.client import Client, ok, refused
from tests.support.spellings import others

UNKNOWN = "00000000-0000-7000-8000-000000000000"
BASE = "/api/v1/remote-jobs"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
NOT_AT_ALL = ("object-src", "base-uri", "form-action", "frame-ancestors")
# Nothing of this may stand in an answer.
TELLING = re.compile(
    r"/work|/root|/usr|/tmp|\.py\b|site-packages|Traceback|SELECT|INSERT|psycopg|sqlalchemy|werkzeug|flask\b|gunicorn"
    r"|postgresql?://|redis://|gevent",
    re.IGNORECASE,
)


def operations(document):
    """(path, its methods)"""
    for path, item in document["paths"].items():
        methods = {method.upper() for method in item if method in ("get", "post", "put", "patch", "delete")}
        yield re.sub(r"\{\w+\}", UNKNOWN, path), methods


def test_every_method_that_is_not_there_is_a_405_that_names_those_that_are(client, document):
    for path, there in operations(document):
        for method in METHODS:
            if method in there:
                continue
            for spelled in {path, path.rstrip("/"), path.rstrip("/") + "/"}:
                answer = client.request(method, spelled)
                refused(answer, 405, "method_not_allowed")
                assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == there, (method, spelled)


def test_every_answer_has_the_headers_that_keep_a_browser_still_and_none_that_tell(bridge, client, document):
    nobody = Client(bridge.url, None, bridge.files)
    for path, there in operations(document):
        for asked in (client, nobody):
            for method in [*there, "OPTIONS", "TRACE"]:
                answer = asked.request(method, path, headers={"Origin": "https://evil.example"})
                headers = answer.headers
                assert headers["X-Content-Type-Options"] == "nosniff"
                policy = headers["Content-Security-Policy"].split("; ")
                assert set(policy) >= {"default-src 'none'", *(f"{what} 'none'" for what in NOT_AT_ALL)}
                assert "unsafe" not in headers["Content-Security-Policy"]
                assert headers["Cache-Control"] == "no-store"
                assert headers["Referrer-Policy"] == "no-referrer"
                assert headers["X-Request-ID"]
                telling = {"Server", "X-Powered-By", "Via", "Set-Cookie"} & set(headers)
                assert not telling
                assert not [name for name in headers if name.startswith("Access-Control-")]
                if path not in ("/metrics",):
                    assert not TELLING.search(answer.text.replace(UNKNOWN, "")), answer.text[:300]


def test_the_documentation_page_runs_its_own_scripts_and_no_other(client):
    """Nor does it depend on what the request says: what one visitor sends must not run at the next one's."""
    evil = "x</script><script>alert(1)//"
    pages = [client.get(path, headers={"Host": host}) for path in ("/docs", "/docs/index.html") for host in ("a", evil)]
    assert {page.text for page in pages} == {pages[0].text}
    for page in pages:
        policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
        scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        assert policy["script-src"].split() == ["'self'", *(f"'sha256-{one}'" for one in hashes)]
        assert len(scripts) == 1
        assert all(source.startswith("/docs/") for source in re.findall(r"<script src=\"([^\"]*)\"", page.text))
        assert [policy[what] for what in NOT_AT_ALL] == ["'none'"] * 4


def test_a_preflight_allows_nothing(client):
    sent = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    answer = client.request("OPTIONS", f"{UNKNOWN}/result", headers=sent)
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


def test_a_method_cannot_be_overridden(client):
    job_id = client.create()
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        refused(client.post(job_id, headers={header: "GET"}), 405)


def test_the_documentation_and_the_metrics_can_be_closed(own_bridge):
    bridge = own_bridge(docs="off", metrics="off", celery=False, beat=False)
    client = bridge.client()
    for path in ("/docs", "/docs/", "/docs/swagger-ui.css", "/openapi.json", "/metrics"):
        refused(client.get(path), 404)
    for path in ("/docs", "/openapi.json", "/metrics"):
        closed = [path, f"{path}?x", f"http://127.0.0.1{path}", *others(path)]
        for spelled in closed:
            received = exchange(bridge, f"GET {spelled} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert re.findall(rb"HTTP/1\.1 (\d{3})", received) in ([b"404"], [b"400"]), spelled
    ok(client.get("/health"))


def test_a_route_answers_to_one_spelling_and_no_header_moves_it(bridge):
    """From this machine the metrics are open, so that it would be seen."""
    assert b" 200 " in exchange(bridge, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    asked = [(path, "X: y") for path in others("/metrics")]
    asked += [
        ("/x/metrics", f"{name}: /x") for name in ("SCRIPT_NAME", "Script-Name", "X-Script-Name", "X-Forwarded-Prefix")
    ]
    asked += [("/x", f"{name}: /metrics") for name in ("PATH_INFO", "X-Original-URL", "X-Rewrite-URL")]
    for path, header in asked:
        received = exchange(bridge, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n".encode())
        assert re.findall(rb"HTTP/1\.1 (\d{3})", received) in ([b"404"], [b"400"]), (path, header)


def test_metrics_can_ask_for_a_key(own_bridge):
    bridge = own_bridge(metrics="key", celery=False, beat=False)
    refused(requests.get(f"{bridge.url}/metrics", timeout=10), 401)
    refused(bridge.client().get("/metrics"), 403)
    refused(bridge.client("default", ("work",)).get("/metrics"), 403)
    assert bridge.client("default", ("read",)).get("/metrics").status_code == 200


CANARY = "/srv/canary.py SELECT canary FROM canary postgresql://canary:canary@canary canary"


class _Original(Exception):
    pgcode = None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(CANARY),
        KeyError(CANARY),
        RecursionError(CANARY),
        MemoryError(CANARY),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
        OSError(2, CANARY, CANARY),
        ProgrammingError(CANARY, {"canary": CANARY}, _Original(CANARY)),
        OperationalError(CANARY, {}, _Original(CANARY)),
        DataError(CANARY, {"canary": CANARY}, _Original(CANARY)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_tells_nothing_of_what_is_inside(error):
    app = Flask("canary")
    problems.register(app)

    @app.route("/")
    def fail():
        raise error

    answer = app.test_client().get("/")
    assert answer.status_code in (500, 503)
    assert answer.content_type == "application/problem+json"
    told = answer.get_data(as_text=True) + str(answer.headers)
    assert "canary" not in told
    assert type(error).__name__ not in told


def exchange(bridge, sent: bytes, answers_within: float = 20) -> bytes:
    """Return what comes back for these bytes until the other side closes, or has answered and waits."""
    with closing(socket.create_connection((bridge.settings.host, bridge.settings.port), answers_within)) as connection:
        received = b""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except OSError as ended:
            if ended.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
        return received


def head(extra: bytes, method: bytes = b"POST", key: str = "") -> bytes:
    start = method + b" " + BASE.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return start + f"Authorization: Bearer {key}\r\n".encode() + extra


BROKEN = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two lengths in one": b"Content-Length: 2, 3\r\n\r\n{}",
    "a length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"Content-Length: -2\r\n\r\n{}",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "a length in hexadecimal": b"Content-Length: 0x2\r\n\r\n{}",
    "bare line feeds": b"X: y\nContent-Length: 2\n\n{}",
    "a folded header": b"X: y\r\n z\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": b"X: \x00\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": b"X : y\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a name": b": y\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk size that is none": b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk that is cut": b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
    "chunks twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "gzip": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an expectation": b"Expect: miracles\r\nContent-Length: 2\r\n\r\n{}",
    "a long header": b"X: " + b"y" * 20_000 + b"\r\n\r\n",
    "a giant header": b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    "too many headers": b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"\r\n",
    "a body that is cut": b"Content-Length: 500\r\n\r\n{}",
}


def refusal(received: bytes) -> list[bytes]:
    """Return the statuses of an answer; fails unless it is a problem that says nothing about us, or no answer."""
    assert b"Server:" not in received
    assert not TELLING.search(received.decode("latin-1")), received[:600]
    statuses: list[bytes] = re.findall(rb"HTTP/1\.1 (\d{3})", received)
    if received:
        top, _, body = received.partition(b"\r\n\r\n")
        assert b"application/problem+json" in top
        assert json.loads(body)["status"] == int(statuses[0])
    return statuses


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_hardly_http_is_refused_once_and_the_connection_ends(bridge, client, name):
    smuggled = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    answers = refusal(exchange(bridge, head(BROKEN[name], key=client.key) + smuggled))
    assert answers in ([b"400"], [b"415"], [b"417"], [b"431"]) or (name == "a giant header" and not answers)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /health HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        bytes(range(256)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\nHost: a\n\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
        b"\r\n" * 1000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
def test_what_is_no_http_is_refused_without_a_word_about_us(bridge, sent):
    answers = refusal(exchange(bridge, sent))
    assert answers in ([b"400"], [b"414"]) or ((sent[:1] == b"\x16" or len(sent) > 9100) and not answers)


def test_pipelined_requests_are_answered_in_order(bridge):
    received = exchange(bridge, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d{3})", received) == [b"200", b"404"]
