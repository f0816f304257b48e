"""A tus client as short as a test wants it, and the objects of the store as they lie on the disk."""

import base64
from pathlib import Path
from typing import Any

import requests

from bridge.names import UPLOADS_BASE
from tests.support.client import Client

BYTES = "application/offset+octet-stream"


def tus(
    client: Client, method: str, path: str = "", headers: dict[str, Any] | None = None, **options: Any
) -> requests.Response:
    """Return a request of the protocol, below the base of uploads unless `path` is a whole one."""
    sent = {"Tus-Resumable": "1.0.0", **{name: str(value) for name, value in (headers or {}).items()}}
    whole = path if path.startswith("/") else f"{UPLOADS_BASE}/{path}".rstrip("/")
    return client.request(method, whole, headers=sent, **options)


def said(**values: str) -> str:
    """Upload-Metadata."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def announce(client: Client, length: int, headers: dict[str, Any] | None = None, **metadata: str) -> str:
    """Return a new upload's address."""
    sent = {"Upload-Length": length, **({"Upload-Metadata": said(**metadata)} if metadata else {}), **(headers or {})}
    answer = tus(client, "POST", headers=sent)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def append(
    client: Client, place: str, offset: int, piece: Any, headers: dict[str, Any] | None = None, **options: Any
) -> requests.Response:
    """PATCH, the answer as it came."""
    sent = {"Upload-Offset": offset, "Content-Type": BYTES, **(headers or {})}
    return tus(client, "PATCH", place, headers=sent, data=piece, **options)


def offset(client: Client, place: str) -> int:
    """How many bytes the server has for good."""
    answer = tus(client, "HEAD", place)
    assert answer.status_code == 200, answer.status_code
    return int(answer.headers["Upload-Offset"])


def objects(settings: Any) -> list[Path]:
    """All files of the store, begun ones too."""
    root = Path(settings.store.removeprefix("file:"))
    return sorted(path for path in root.rglob("*") if path.is_file())
