"""A server that sends its part of TLS byte by byte holds a download no longer than one that sends nothing."""

import socket
import subprocess
import sys
from contextlib import suppress

# In a process whose sockets are gevent's, as the API's are: there each read of a handshake has its own time.
DRAWN_OUT = """
from gevent import monkey
monkey.patch_all()
import sys, time
from types import SimpleNamespace
from bridge.errors import Unavailable
from bridge.jobs.remote_sources import open_remote
settings = SimpleNamespace(source_allow=("https://127.0.0.1:*",), source_networks=("127.0.0.1",), upload_max_bytes=1)
try:
    open_remote(SimpleNamespace(settings=settings), "default", sys.argv[1], None, None, seconds=1.0)
except Unavailable as why:
    print(why.detail)
"""


def test_a_handshake_that_is_drawn_out_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        with subprocess.Popen([sys.executable, "-c", DRAWN_OUT, url], stdout=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x3f\xff")  # the head of a record that takes 16 KiB, never whole
                while process.poll() is None:
                    connection.sendall(b"\x02")
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.1)
            assert "No answer within 1 s" in process.communicate(timeout=60)[0]
