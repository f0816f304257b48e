"""Sources that the worker fetches by itself: from where it may, over TLS, and never more than the file."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import threading
import time

import pytest
from scripted_bridge import Say, ScriptedBridge

from bridge_worker import source_fetch
from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.download import Download, Refused
from bridge_worker.public_addresses import read_networks

DATA = os.urandom(300_000)
LOOPBACK = read_networks("127.0.0.1, ::1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    at = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(at / "key"),
            "-out", str(at / "certificate")]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    (at / "both").write_bytes((at / "certificate").read_bytes() + (at / "key").read_bytes())
    return at / "both"


@pytest.fixture
def server(certificate, monkeypatch):
    """Where a producer's file lies; the worker knows its certificate."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    source_fetch._tls.cache_clear()
    scripted = ScriptedBridge(certificate)
    yield scripted
    scripted.close()
    source_fetch._tls.cache_clear()


@pytest.fixture
def fetch(bridge, server, held, tmp_path):
    """Return a function that downloads as a job's attempt does, where the bridge names this address."""

    def download(address=f"{server.url}/a/download?key=secret", networks=LOOPBACK, declared=None, **limits):
        told = {"Location": address, "X-Source-Fetch": "worker", "Content-Disposition": 'attachment; filename="a.pdf"'}
        bridge.always("download", Say(307, headers=told | ({"Repr-Digest": digest(declared)} if declared else {})))
        client = BridgeClient(bridge.url, "the-key", "w1", source_networks=networks)
        return Download(client, held, tmp_path, **limits).fetch()

    return download


def test_what_broke_off_goes_on_and_nothing_of_the_bridge_is_sent(bridge, server, fetch):
    cookie = {"ETag": '"one"', "Set-Cookie": "a=b; Path=/", "X-Job-Status": "cancelled"}
    rest = Say(206, data=DATA[200_000:], headers={"Content-Range": "bytes 200000-299999/300000", "ETag": '"one"'})
    server.script("download", Say(data=DATA, cut=200_000, headers=cookie), Say(503), rest)
    path = fetch()
    assert (path.read_bytes(), path.suffix) == (DATA, ".pdf")
    asked = [server.next("download") for _ in range(3)]
    assert [one.headers.get("range") for one in asked] == [None, "bytes=200000-", "bytes=200000-"]
    assert asked[2].headers["if-range"] == '"one"'
    for one in asked:
        assert one.query == {"key": "secret"}
        assert not {"authorization", "x-lease-token", "cookie", "traceparent"} & one.headers.keys()
    assert bridge.calls_left("download") == 3  # each time the bridge is asked first


@pytest.mark.parametrize(("answer", "words"), [
    (Say(404), "answers 404"), (Say(302, headers={"Location": "https://x.org/"}), "redirects are not followed"),
    (Say(data=b"x", headers={"Content-Encoding": "gzip"}), "encoded"), (Say(stream=[b"x"]), "Content-Length"),
    (Say(data=b"x" * 500), "at most 400"),
])  # fmt: skip
def test_what_asking_again_will_not_mend_fails_the_job_at_once(server, fetch, answer, words):
    server.script("download", answer)
    with pytest.raises(Refused, match=words) as refused:
        fetch(most=400)
    assert "secret" not in str(refused.value)
    server.next("download")
    assert server.calls_left("download") == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "2130706433"])
def test_it_is_led_to_no_address_that_is_not_public(server, fetch, host):
    port = server.url.rpartition(":")[2]
    with pytest.raises(Refused, match="not public") as refused:
        fetch(f"https://{host}:{port}/download?key=secret", networks=[])
    assert "secret" not in str(refused.value)
    assert server.calls_left("download") == 0


@pytest.mark.parametrize("address", [
    "http://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://a@127.0.0.1/x", "https:///x", "",
    "https://127.0.0.1/a b",
])  # fmt: skip
def test_only_https_is_spoken(fetch, address):
    with pytest.raises(Refused, match="source's address"):
        fetch(address)


@pytest.mark.parametrize("place", ["127.0.0.1:65536", "a:0", "a..b", "[::1:2", "1.2.3.999"])
def test_an_address_that_there_is_not_is_refused_and_not_asked_for_again(bridge, fetch, place):
    with pytest.raises(Refused, match=r"source's address .*port of 1 to 65535") as refused:
        fetch(f"https://{place}/x?key=secret")
    assert "secret" not in str(refused.value)
    bridge.next("download")
    assert bridge.calls_left("download") == 0


def test_a_name_is_looked_up_once(server, fetch, monkeypatch):
    """Were it looked up again to connect, the second answer would lead elsewhere."""
    server.always("download", Say(data=b"x"))
    looked, real = [], socket.getaddrinfo

    def changing(host, port, *more, **options):
        if host != "localhost":
            return real(host, port, *more, **options)
        looked.append(host)
        return real("127.0.0.1" if len(looked) == 1 else "127.0.0.9", port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    assert fetch(f"{server.url.replace('127.0.0.1', 'localhost')}/download").read_bytes() == b"x"
    assert looked == ["localhost"]


def test_another_certificate_is_refused(server, fetch, held, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    source_fetch._tls.cache_clear()
    held.patience = lambda: 0.0  # one try
    with pytest.raises(CallFailed, match="self-signed") as failed:
        fetch()
    assert "secret" not in str(failed.value)


def test_a_cancel_breaks_it_off(server, fetch, held):
    """Else it would wait for a minute for the bytes that do not come."""
    began = time.monotonic()
    server.script("download", Say(data=DATA, headers={"Content-Length": "1000000"}))
    threading.Thread(target=lambda: (server.next("download"), held.abandon("cancelled")), daemon=True).start()
    with pytest.raises(CallFailed):
        fetch()
    assert held.over.is_set()
    assert time.monotonic() - began < source_fetch.SILENCE_SECONDS - 10


def digest(data):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize(("declared", "told"), [(None, DATA), (DATA, None), (DATA, DATA[::-1])])
def test_a_digest_is_held_to_its_producers_or_else_its_servers(server, fetch, declared, told):
    headers = {"Repr-Digest": digest(told)} if told else {}
    server.script("download", Say(data=DATA[::-1], headers=headers), Say(data=DATA, headers=headers))
    assert fetch(declared=declared).read_bytes() == DATA


def test_no_answer_and_an_unknown_name_may_pass(server, fetch, held, monkeypatch):
    server.script(
        "download", Say(drop=True), Say(data=DATA, cut=1000, headers={"ETag": '"1"'}), Say(416), Say(data=b"x")
    )
    assert fetch().read_bytes() == b"x"
    held.patience = lambda: 0.0  # one try
    monkeypatch.setattr(source_fetch, "HEAD_SECONDS", 0.5)
    server.script("download", Say(wait=server.closing))
    with pytest.raises(CallFailed, match=r"the source's server 127\.0\.0\.1"):
        fetch()
    real = socket.getaddrinfo

    def unknown(host, *more, **options):
        if host == "nowhere.example":
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CallFailed, match=r"nowhere\.example is not known \(DNS\)"):
        fetch("https://nowhere.example/x?key=secret")
