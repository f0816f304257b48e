"""Bodies as they are, well formed or not, to every route of a job that takes one."""

from typing import Any

import requests

from tests.support.client import Client

JSON = {"Content-Type": "application/json"}
UNKNOWN = "00000000-0000-7000-8000-000000000000"
WITH_BODY = [
    ("POST", ""),
    ("PUT", f"{UNKNOWN}/result"),
    ("POST", f"{UNKNOWN}/heartbeat"),
    ("PUT", f"{UNKNOWN}/progress"),
    ("POST", f"{UNKNOWN}/release"),
]


def send(client: Client, method: str, path: str, body: Any, **headers: str) -> requests.Response:
    """Return the answer to these bytes, sent as JSON unless the headers say otherwise."""
    return client.request(method, path, data=body, headers={**JSON, **headers})
