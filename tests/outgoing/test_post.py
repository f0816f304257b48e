"""One request to a receiver that is what receivers may be: elsewhere, hanging, trickling, huge."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from bridge.outgoing.addresses import network
from bridge.outgoing.connect import NotSent, tls
from bridge.outgoing.destination import Allowed, BadAddress
from bridge.outgoing.post import Answer, post
from tests.support.file_server import certificate_for
from tests.support.receiver import Answers, Received, answer, hang, receiver, trickle_body, trickle_head

LOOPBACK = [network("127.0.0.0/8")]
LOCAL = Allowed.of(["http://127.0.0.1:*", "http://hooks.example.org:*", "https://hooks.example.org:*"], LOOPBACK)


def to_loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def test_a_body_is_posted_and_the_answers_beginning_is_kept() -> None:
    with receiver() as there:
        there.answers = answer(202, "taken \x00\n" + "x" * 5000, Retry_After="7")
        answered = post(LOCAL, f"{there.url}?a=b", b"body", {"webhook-id": "1"})
        assert answered == Answer(202, "taken   " + "x" * 292, 7.0)
        (got,) = there.got
        assert (got.path, got.body) == ("/hook?a=b", b"body")
        assert got.headers == {"host": f"127.0.0.1:{there.port}", "webhook-id": "1", "content-length": "4",
                               "connection": "close", "accept-encoding": "identity",
                               "user-agent": got.headers["user-agent"]}  # fmt: skip


def test_a_name_is_looked_up_once_and_what_was_judged_is_connected_to() -> None:
    """DNS that changes between the look and the use: whoever asked again would get the other address."""
    asked = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with receiver() as there, receiver(address="127.0.0.2") as canary:
        post(LOCAL, f"http://hooks.example.org:{there.port}/", b"", {}, ask=rebinding)
        assert asked == [("hooks.example.org", there.port)]
        assert there.got[0].headers["host"] == f"hooks.example.org:{there.port}"
        assert not canary.got


@pytest.mark.parametrize("ips", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"],
                                 ["fe80::1%lo"], ["169.254.169.254"]])  # fmt: skip
def test_a_name_with_an_inner_address_is_connected_to_nowhere(ips: list[str]) -> None:
    """One is enough. Nothing is opened: a connection would be refused, and told as such."""
    for entry in ("https://*", "https://hooks.example.org"):
        with pytest.raises(BadAddress, match="may not be reached"):
            post(Allowed.of([entry]), "https://hooks.example.org/", b"", {}, ask=lambda *_: ips)


def test_a_redirect_is_an_answer_and_leads_nowhere() -> None:
    with receiver() as there, receiver() as canary:
        for status in (301, 302, 303, 307, 308):
            there.answers = answer(status, Location=canary.url)
            assert post(LOCAL, there.url, b"", {}).status == status
        there.answers = answer(200, Refresh=f"0; url={canary.url}", Alt_Svc=f'http/1.1="127.0.0.1:{canary.port}"')
        assert post(LOCAL, there.url, b"", {}).status == 200
        assert not canary.got


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as there, receiver() as canary:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
        assert post(LOCAL, there.url, b"", {}).status == 204
        assert not canary.got


def test_nobody_there_is_told() -> None:
    with receiver() as there:
        pass
    with pytest.raises(NotSent, match="takes no connection"):
        post(LOCAL, there.url, b"", {})

    def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError

    with pytest.raises(NotSent, match="looked up"):
        post(LOCAL, "http://hooks.example.org:9/", b"", {}, ask=unknown)
    with pytest.raises(NotSent, match="no address"):
        post(LOCAL, "http://hooks.example.org:9/", b"", {}, ask=lambda *_: [])


def _continue_for_ever(handler: BaseHTTPRequestHandler, _: Received) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        Event().wait(0.05)


@pytest.mark.parametrize("hangs", [hang, trickle_head, _continue_for_ever])
def test_a_receiver_that_takes_its_time_is_cut_off(hangs: Answers) -> None:
    with receiver() as there:
        there.answers = hangs
        began = time.monotonic()
        with pytest.raises(NotSent, match="No whole answer within 1 s"):
            post(LOCAL, there.url, b"", {}, seconds=1)
        assert 0.9 < time.monotonic() - began < 10


def test_a_status_counts_whatever_becomes_of_the_text() -> None:
    with receiver() as there:
        there.answers = trickle_body
        began = time.monotonic()
        assert post(LOCAL, there.url, b"", {}, seconds=1).status == 200
        assert time.monotonic() - began < 10
        there.answers = lambda handler, _: handler.wfile.write(b"HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\nno")
        assert post(LOCAL, there.url, b"", {}).status == 503


def _endless(handler: BaseHTTPRequestHandler, _: Received) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def _head(lines: bytes) -> Answers:
    return lambda handler, _: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + lines)


def test_of_an_answer_without_end_the_beginning_is_read() -> None:
    with receiver() as there:
        there.answers = _endless
        assert post(LOCAL, there.url, b"", {}) == Answer(200, "x" * 300, None)
        for lines in (b"X: " + b"x" * 200_000, b"X: y\r\n" * 100_000):
            there.answers = _head(lines)
            with pytest.raises(NotSent, match="connection failed"):
                post(LOCAL, there.url, b"", {})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_for(tmp_path_factory.mktemp("tls"), "DNS:hooks.example.org")


def test_tls_is_for_the_name_though_the_address_is_pinned(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls.cache_clear()
    try:
        with receiver(certificate) as there:
            url = f"https://hooks.example.org:{there.port}/"
            assert post(LOCAL, url, b"", {}, ask=to_loopback).status == 204
            others = Allowed.of(["https://other.example.org:*", "https://127.0.0.1:*"], LOOPBACK)
            for other in ("other.example.org", "127.0.0.1"):
                with pytest.raises(NotSent, match="TLS failed"):
                    post(others, f"https://{other}:{there.port}/", b"", {}, ask=to_loopback)
            monkeypatch.delenv("SSL_CERT_FILE")
            tls.cache_clear()
            with pytest.raises(NotSent, match="TLS failed"):
                post(LOCAL, url, b"", {}, ask=to_loopback)
            assert len(there.got) == 1
    finally:
        tls.cache_clear()


def test_the_systems_resolver_is_asked_in_a_process_of_its_own() -> None:
    """`localhost` by the real resolver: judged, and refused."""
    code = (
        "from bridge.outgoing.destination import Allowed, BadAddress\nfrom bridge.outgoing.post import post\n"
        "try: post(Allowed.of(['http://localhost:*']), 'http://localhost:9/', b'', {})\n"
        "except BadAddress as why: print(why)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=True)
    assert "not a public address" in said.stdout
