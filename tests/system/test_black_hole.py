"""A network that forgets established connections without a word: no RST, no FIN, no acknowledgement of any packet.

A client in a network namespace reaches PostgreSQL and Redis over a link that goes down. The fault proxy's black hole is
another fault: there the kernel still acknowledges, as that of a frozen server does. Needs root, and `ip` of iproute2.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

HERE, THERE = "10.213.77.1", "10.213.77.2"
NAME = f"hole{os.getpid() % 100000}"
INSIDE = ("ip", "netns", "exec", NAME)

CLIENT = """
import json, sys, time
from sqlalchemy import text
from bridge.db import make_engine
from bridge.redis_client import connect
from bridge.settings import load_settings

what, url, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
if what == "redis":
    client = connect(url, socket_timeout=2, socket_keepalive=True)
    client.ping()
    ask = client.ping
else:
    connection = make_engine(load_settings({"BRIDGE_DATABASE_URL": url})).connect()
    connection.execute(text("SELECT 1"))
    ask = lambda: connection.execute(text("SELECT pg_sleep(:s)"), {"s": seconds})
print("connected", flush=True)
if not seconds:
    sys.stdin.readline()
began = time.monotonic()
try:
    ask()
    print(json.dumps(["answered", time.monotonic() - began]))
except Exception as error:
    print(json.dumps([type(error).__name__, time.monotonic() - began]))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


@pytest.fixture
def link() -> Iterator[None]:
    """Yield a network namespace whose only way out is one link."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and ip (apt-get install -y iproute2)")
    try:
        ip("netns", "add", NAME)
    except subprocess.CalledProcessError:
        pytest.skip("this machine allows no network namespaces")
    try:
        ip("link", "add", NAME, "type", "veth", "peer", "name", "out", "netns", NAME)
        ip("addr", "add", f"{HERE}/30", "dev", NAME)
        ip("link", "set", NAME, "up")
        subprocess.run([*INSIDE, "ip", "addr", "add", f"{THERE}/30", "dev", "out"], check=True, timeout=30)
        subprocess.run([*INSIDE, "ip", "link", "set", "out", "up"], check=True, timeout=30)
        yield
    finally:
        ip("netns", "del", NAME)


def forwarded(url: str) -> str:
    """Return the same server, at this end of the link."""
    parts = urlsplit(url)
    listener = socket.create_server((HERE, 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while some := source.recv(65536):
                sink.sendall(some)

    def serve() -> None:
        while True:
            client, server = listener.accept()[0], socket.create_connection((parts.hostname, parts.port))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    account = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{account}@{HERE}:{listener.getsockname()[1]}").geturl()


@pytest.mark.points
def test_established_connections_that_are_forgotten_end_in_time(link, servers):
    database, redis = forwarded(servers.database_url), forwarded(servers.redis_url)
    bounds = {  # seconds for what is sent into the hole, and for an answer that was waited for
        ("postgresql", database, "0"): 25.0,
        ("postgresql", database, "14"): 50.0,
        ("redis", redis, "0"): 5.0,
    }
    clients = [
        subprocess.Popen([*INSIDE, sys.executable, "-c", CLIENT, *asked], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for asked in bounds
    ]  # fmt: skip
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == "connected\n"
        ip("link", "set", NAME, "down")
        for client in clients:
            assert client.stdin is not None
            with suppress(BrokenPipeError):  # one that waits reads no more
                client.stdin.write("go\n")
                client.stdin.flush()
        for client, (asked, bound) in zip(clients, bounds.items(), strict=True):
            error, seconds = json.loads(client.communicate(timeout=120)[0])
            assert error in ("OperationalError", "TimeoutError", "ConnectionError"), (asked[0], error)
            assert seconds < bound, (asked[0], seconds)
    finally:
        for client in clients:
            client.kill()
