"""A server of files over TLS at an address of loopback, for sources that jobs name."""

import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.support.receiver import Answers, Received

HERE = "127.0.0.2"  # the one address of loopback that a bridge, or a worker, may reach
FILE = (b"count\n" + bytes(range(256)) * 2000)[:512_000]
ETAG = '"v1"'


def certificate_for(at: Path, names: str = f"IP:{HERE},DNS:localhost") -> Path:
    """Make a certificate for these names, signed by itself, in this directory; with its key in one file."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2", "-subj", "/CN=x", "-addext", f"subjectAltName={names}", "-keyout", str(at / "key"),
            "-out", str(at / "certificate")]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    both = at / "both.pem"
    both.write_bytes((at / "certificate").read_bytes() + (at / "key").read_bytes())
    return both


def files(handler: BaseHTTPRequestHandler, came: Received) -> None:
    """Serve files, with ranges."""
    asked = came.headers.get("range")
    whole = asked is None or came.headers.get("if-range", ETAG) != ETAG
    first = 0 if whole or asked is None else int(asked.removeprefix("bytes=").partition("-")[0])
    if first >= len(FILE):
        handler.wfile.write(f"HTTP/1.1 416 x\r\nContent-Range: bytes */{len(FILE)}\r\n\r\n".encode())
        return
    handler.send_response(200 if whole else 206)
    if not whole:
        handler.send_header("Content-Range", f"bytes {first}-{len(FILE) - 1}/{len(FILE)}")
    handler.send_header("Content-Length", str(len(FILE) - first))
    handler.send_header("ETag", ETAG)
    handler.send_header("Set-Cookie", "a=b")
    handler.end_headers()
    handler.wfile.write(FILE[first:])


def raw(head: str, rest: bytes = b"") -> Answers:
    """Return what answers always with this head, whatever is wrong with it."""
    return lambda handler, _: handler.wfile.write(
        b"HTTP/1.1 " + head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + rest
    )
